//! Where the client prints: a broken pipe is an end, not an error.

use std::io::{self, ErrorKind, IsTerminal, Write};

use super::failure::Failure;

/// The narrowest table that is worth drawing, and what is taken where nothing says how wide to be.
const NARROWEST: usize = 40;
const USUAL: usize = 80;

/// Standard output and error.
#[derive(Debug, Clone, Copy)]
pub(super) struct Out {
    /// Standard output is a terminal.
    pub(super) terminal: bool,
    /// Colours are wanted.
    pub(super) colour: bool,
    /// Columns.
    pub(super) width: usize,
}

impl Out {
    /// As the environment has it: `NO_COLOR`, `TERM=dumb` and `COLUMNS` are honoured.
    pub(super) fn new(terminal_columns: Option<usize>) -> Out {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let terminal = io::stdout().is_terminal();
        let columns = std::env::var("COLUMNS").ok().and_then(|text| text.parse::<usize>().ok());
        Out {
            terminal,
            colour: terminal && !dumb && !set("NO_COLOR"),
            width: columns.or(terminal_columns).filter(|width| *width > 0).unwrap_or(USUAL).max(NARROWEST),
        }
    }

    /// Prints text as it is.
    pub(super) fn print(&self, text: &str) -> Result<(), Failure> {
        put(&mut io::stdout().lock(), text)
    }

    /// Prints text and ends its line.
    pub(super) fn line(&self, text: &str) -> Result<(), Failure> {
        self.print(&format!("{text}\n"))
    }

    /// Says something on standard error. There is nobody to tell that this fails.
    pub(super) fn complain(&self, text: &str) {
        let _ = writeln!(io::stderr().lock(), "{text}");
    }
}

fn put(to: &mut impl Write, text: &str) -> Result<(), Failure> {
    match to.write_all(text.as_bytes()).and_then(|()| to.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Failure::Gone),
        Err(error) => Err(Failure::Failed(format!("cannot print: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_is_gone_ends_the_command_quietly_with_0() {
        let (reader, mut writer) = io::pipe().unwrap();
        drop(reader);
        let failure = put(&mut writer, "x").unwrap_err();
        assert_eq!((failure.code().number(), failure.text()), (0, None));
    }
}
