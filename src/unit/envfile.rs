//! Environment files: `KEY=VALUE` lines with quotes, `#` comments and an optional `export`; no expansion.

/// Reads the text of one. The error is a 1-based line and what is wrong there.
pub fn parse(_text: &str) -> Result<Vec<(String, String)>, (usize, String)> {
    todo!()
}
