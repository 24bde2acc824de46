//! The API's JSON, laid out for people: nothing added, nothing lost, keys in the order that they came in.

/// Indents a JSON text by two blanks a level, without an end of line. What a terminal would act on and JSON
/// allows bare in a string (DEL, C1) is escaped, which changes no value.
pub(super) fn pretty(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let mut chars = text.trim().chars().peekable();
    let mut depth = 0usize;
    let newline = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    while let Some(c) = chars.next() {
        match c {
            '"' => string(&mut out, &mut chars),
            '{' | '[' => {
                out.push(c);
                while chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
                match chars.next_if(|next| matches!(next, '}' | ']')) {
                    Some(end) => out.push(end),
                    None => {
                        depth += 1;
                        newline(&mut out, depth);
                    }
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                newline(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(',');
                newline(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c if c.is_whitespace() => {}
            c => out.push(c),
        }
    }
    out
}

/// The rest of a string whose first quote was taken.
fn string(out: &mut String, chars: &mut impl Iterator<Item = char>) {
    out.push('"');
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                out.push('"');
                return;
            }
            '\\' => {
                out.push('\\');
                out.extend(chars.next());
            }
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
}

/// One line of JSON, its strings made safe for a terminal.
pub(super) fn compact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.trim().chars();
    while let Some(c) = chars.next() {
        if c == '"' { string(&mut out, &mut chars) } else { out.push(c) }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_keeps_its_order_its_numbers_and_its_strings() {
        let text = r#"{"b":1.50,"a":[],"c":{ },"d":["x, {y}: \"z\"",{"e":null}]}"#;
        let expected = r#"{
  "b": 1.50,
  "a": [],
  "c": {},
  "d": [
    "x, {y}: \"z\"",
    {
      "e": null
    }
  ]
}"#;
        assert_eq!(pretty(text), expected);
        assert_eq!(pretty(expected), expected);
    }

    #[test]
    fn a_string_of_json_cannot_drive_a_terminal() {
        assert_eq!(pretty("[\"a\u{9b}2J\u{7f}\"]"), "[\n  \"a\\u009b2J\\u007f\"\n]");
        assert_eq!(compact("{\"a\": \"\u{9b}\"}"), r#"{"a": "\u009b"}"#);
    }
}
