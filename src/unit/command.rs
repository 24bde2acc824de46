//! A command that is written as one string: split as a shell splits words, and refused where it needs one.

/// Splits. The error is what is wrong, and whether a shell would do.
pub(super) fn split(text: &str) -> Result<Vec<String>, (String, bool)> {
    if let Some(special) = unquoted_special(text) {
        return Err((format!("no shell runs, and there is an unquoted {special}"), true));
    }
    shlex::split(text).ok_or_else(|| ("a quote or a backslash at the end is left open".to_owned(), false))
}

/// The first character outside of quotes that means something to a shell.
fn unquoted_special(text: &str) -> Option<char> {
    let mut chars = text.chars();
    let mut quote = None;
    let mut word = false;
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (None | Some('"'), '\\') => {
                chars.next();
            }
            (None, '|' | '&' | ';' | '<' | '>' | '$' | '`') => return Some(c),
            // A comment: shlex drops it too.
            (None, '#') if !word => while !matches!(chars.next(), None | Some('\n')) {},
            (Some(open), c) if c == open => quote = None,
            (None | Some(_), _) => {}
        }
        word = quote.is_some() || !c.is_ascii_whitespace();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_a_shell_splits_them() {
        assert_eq!(
            split(r#"nginx -g "daemon off;" 'a b' c\ d"#).unwrap(),
            ["nginx", "-g", "daemon off;", "a b", "c d"]
        );
        assert_eq!(split(r#"sh -c "echo $HOME | cat""#).unwrap(), ["sh", "-c", "echo $HOME | cat"]);
        assert_eq!(split("a\\;b # c; d").unwrap(), ["a;b"]);
        assert_eq!(split("a#b").unwrap(), ["a#b"]);
    }

    #[test]
    fn an_unquoted_character_of_a_shell_is_named() {
        for special in ['|', '&', ';', '<', '>', '$', '`'] {
            let (message, shell) = split(&format!("a 'x' {special}b")).unwrap_err();
            assert!(message.contains(special) && shell, "{message}");
        }
        assert_eq!(split("a # b\nc | d").unwrap_err().0, "no shell runs, and there is an unquoted |");
        assert!(!split("a 'b").unwrap_err().1);
    }
}
