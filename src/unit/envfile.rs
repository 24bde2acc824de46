//! Environment files: `KEY=VALUE` lines with quotes, `#` comments and an optional `export`; no expansion.
//!
//! They mean what they mean to systemd: a value may hold blanks without quotes; in single quotes everything
//! stands for itself, in double quotes a backslash escapes `"`, `\`, `$` and a backtick; quotes may span lines.

use std::iter::Peekable;
use std::str::Chars;

/// Reads the text of one. The error is a 1-based line and what is wrong there.
pub fn parse(text: &str) -> Result<Vec<(String, String)>, (usize, String)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n");
    if let Some(at) = text.find('\0') {
        let line = text.chars().take_while(|c| *c != '\0').filter(|c| *c == '\n').count() + 1;
        return Err((line, format!("a NUL byte, {at} bytes into the file")));
    }
    let mut reader = Reader { rest: text.chars().peekable(), line: 1 };
    let mut found = Vec::new();
    while reader.rest.peek().is_some() {
        found.extend(reader.assignment()?);
    }
    Ok(found)
}

struct Reader<'t> {
    rest: Peekable<Chars<'t>>,
    line: usize,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let next = self.rest.next();
        if next == Some('\n') {
            self.line += 1;
        }
        next
    }

    fn skip_blanks(&mut self) {
        while self.rest.next_if(|c| *c == ' ' || *c == '\t').is_some() {}
    }

    fn skip_line(&mut self) {
        while !matches!(self.next(), None | Some('\n')) {}
    }

    /// One line, or more where a quote or a backslash at the end carries it on; `None` if nothing is on it.
    fn assignment(&mut self) -> Result<Option<(String, String)>, (usize, String)> {
        self.skip_blanks();
        if matches!(self.rest.peek(), None | Some('\n' | '#' | ';')) {
            self.skip_line();
            return Ok(None);
        }
        let line = self.line;
        let mut name = String::new();
        while let Some(c) = self.rest.next_if(|c| *c != '=' && *c != '\n') {
            name.push(c);
        }
        if self.rest.next_if_eq(&'=').is_none() {
            // What stands there is not shown: it may be a line of a secret.
            return Err((line, "no assignment: write NAME=VALUE".to_owned()));
        }
        // An indented `export` and a blank before `=` are no part of the name.
        let name = name.trim_end();
        let name = match name.strip_prefix("export") {
            Some(rest) if rest.starts_with([' ', '\t']) => rest.trim(),
            Some(_) | None => name,
        };
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if name.is_empty() || !name.chars().all(good) {
            return Err((line, "what stands before the = is no name of a variable".to_owned()));
        }
        let value = self.value()?;
        Ok(Some((name.to_owned(), value)))
    }

    fn value(&mut self) -> Result<String, (usize, String)> {
        self.skip_blanks();
        let line = self.line;
        let Some(quote) = self.rest.next_if(|c| matches!(c, '"' | '\'')) else {
            return Ok(self.unquoted());
        };
        let mut value = String::new();
        loop {
            match self.next() {
                None => return Err((line, format!("the quote {quote} is never closed"))),
                Some(c) if c == quote => break,
                Some('\\') if quote == '"' => match self.next() {
                    Some('\n') => {}
                    Some(c @ ('"' | '\\' | '$' | '`')) => value.push(c),
                    Some(c) => value.extend(['\\', c]),
                    None => {}
                },
                Some(c) => value.push(c),
            }
        }
        let line = self.line;
        let blank = self.rest.peek().is_some_and(|c| *c == ' ' || *c == '\t');
        self.skip_blanks();
        match self.rest.peek() {
            None | Some('\n') => {}
            Some('#') if blank => {}
            Some(_) => return Err((line, format!("text after the closing quote {quote}"))),
        }
        self.skip_line();
        Ok(value)
    }

    fn unquoted(&mut self) -> String {
        let mut value = String::new();
        // How much of the value is certain: blanks at its end are none of it, unless they were escaped.
        let (mut kept, mut blank) = (0, true);
        while let Some(c) = self.next() {
            match c {
                '\n' => break,
                '#' if blank => {
                    self.skip_line();
                    break;
                }
                '\\' => {
                    if let Some(escaped) = self.next().filter(|c| *c != '\n') {
                        value.push(escaped);
                        kept = value.len();
                    }
                    blank = false;
                    continue;
                }
                _ => value.push(c),
            }
            blank = c == ' ' || c == '\t';
            if !blank {
                kept = value.len();
            }
        }
        value.truncate(kept);
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> String {
        parse(text).unwrap().pop().unwrap().1
    }

    #[test]
    fn values_are_read_with_and_without_quotes() {
        for (text, value) in [
            ("A=b", "b"),
            ("A=", ""),
            ("  export A=b  \r\n", "b"),
            ("A=hello world  # greeting", "hello world"),
            ("A=b#c", "b#c"),
            ("A='it is $HOME' # no expansion", "it is $HOME"),
            (r#"A="say \"hi\" \n $HOME""#, r#"say "hi" \n $HOME"#),
            ("A=\"two\nlines\"", "two\nlines"),
            ("A=a\\ \nB=c", "c"),
            ("A=one\\\ntwo", "onetwo"),
            ("A=it's", "it's"),
            ("A=b=c", "b=c"),
            ("A= # nothing", ""),
        ] {
            assert_eq!(one(text), value, "{text:?}");
        }
        assert_eq!(parse("# no\n; no\n\nexported=1\n").unwrap(), [("exported".to_owned(), "1".to_owned())]);
    }

    #[test]
    fn a_wrong_line_is_named() {
        for (text, line) in [
            ("A=1\nnonsense\n", 2),
            ("A=1\n\n=2", 3),
            ("A='x\ny", 1),
            ("A='x'y", 1),
            ("A=1\nB C=2", 2),
            ("a\n\0", 2),
        ] {
            assert_eq!(parse(text).unwrap_err().0, line, "{text:?}");
        }
    }
}
