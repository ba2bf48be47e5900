//! `cmkfs key tag`, `cmkfs key untag` and `cmkfs key update-description`.

/// Reads KEY=VALUE.
pub(super) fn tag(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Err("a tag looks like KEY=VALUE"),
    }
}
