//! Lines and their chain: each ends with its number and the link that covers it and all lines before it.

use std::io::{self, BufRead, Read};

use serde::{Deserialize, Serialize};

use crate::crypto::chain::Link;
use crate::kms::seal::Sealer;

/// No line comes near this; a longer one is not read into memory. A backup of 10,000 keys is one line.
pub(super) const MAX_LINE: u64 = 16 << 20;
/// What stands between a line and its link.
const BEFORE_LINK: &[u8] = b",\"chainValue\":\"";
const AFTER_LINK: &[u8] = b"\"}\n";
const LINK_DIGITS: usize = 64;

/// How far a log goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(in crate::kms) struct End {
    /// Lines.
    pub sequence: u64,
    /// Bytes.
    pub length: u64,
    /// The last line's link.
    pub link: Link,
}

impl End {
    /// Before the first line.
    pub(super) fn beginning(sealer: &Sealer) -> Self {
        Self {
            sequence: 0,
            length: 0,
            link: sealer.first_link(),
        }
    }

    /// Chains `text`, a JSON object, after this end: moves the end, and returns the line.
    pub(super) fn chain(&mut self, sealer: &Sealer, text: &str) -> String {
        let open = text.strip_suffix('}').unwrap_or(text);
        let mut line = format!("{open},\"sequenceNumber\":{}", self.sequence + 1);
        let link = sealer.link(&self.link, line.as_bytes());
        line += &String::from_utf8_lossy(BEFORE_LINK);
        line += &hex::encode(link);
        line += &String::from_utf8_lossy(AFTER_LINK);
        self.sequence += 1;
        self.length += line.len() as u64;
        self.link = link;
        line
    }

    /// Moves the end over `line`, if that follows.
    fn follow(&mut self, sealer: &Sealer, line: &[u8]) -> bool {
        let Some((covered, link)) = split(line) else {
            return false;
        };
        let number = format!(",\"sequenceNumber\":{}", self.sequence.saturating_add(1));
        let expected = sealer.link(&self.link, covered);
        if !covered.ends_with(number.as_bytes()) || hex::encode(expected).as_bytes() != link {
            return false;
        }
        self.sequence += 1;
        self.length += line.len() as u64;
        self.link = expected;
        true
    }
}

/// What a line's link covers, and the link's digits.
fn split(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = line.strip_suffix(AFTER_LINK)?;
    let (rest, link) = rest.split_at_checked(rest.len().checked_sub(LINK_DIGITS)?)?;
    Some((rest.strip_suffix(BEFORE_LINK)?, link))
}

/// How many bytes at the end of a line hold its link.
pub(super) const LINK_AT_END: usize = LINK_DIGITS + AFTER_LINK.len();

/// Whether the last bytes of a line hold `link`.
pub(super) fn ends_with_link(end: &[u8; LINK_AT_END], link: &Link) -> bool {
    end.strip_suffix(AFTER_LINK) == Some(hex::encode(link).as_bytes())
}

/// What comes next in a log.
pub(super) enum Next {
    /// A line that follows.
    Line(Vec<u8>),
    /// Nothing.
    Nothing,
    /// The beginning of a line: one is being written, or its writer died.
    Unfinished,
    /// A line that does not follow.
    Foreign(Vec<u8>),
}

/// Walks over the lines of a log, one in memory at a time.
pub(super) struct Walk<'a, R> {
    sealer: &'a Sealer,
    reader: R,
    /// After the last line that followed.
    pub end: End,
}

impl<'a, R: BufRead> Walk<'a, R> {
    /// Goes on after `end`, where `reader` stands.
    pub(super) fn new(sealer: &'a Sealer, reader: R, end: End) -> Self {
        Self {
            sealer,
            reader,
            end,
        }
    }

    pub(super) fn next(&mut self) -> io::Result<Next> {
        let mut line = Vec::new();
        (&mut self.reader)
            .take(MAX_LINE)
            .read_until(b'\n', &mut line)?;
        Ok(if line.is_empty() {
            Next::Nothing
        } else if self.end.follow(self.sealer, &line) {
            Next::Line(line)
        } else if !line.ends_with(b"\n") || line.contains(&0) {
            // After a power failure there can be zeros where something was to be.
            Next::Unfinished
        } else {
            Next::Foreign(line)
        })
    }
}
