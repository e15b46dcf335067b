//! Where one reply of the server ends and the next begins.

/// Finds the end of each message in a stream of bytes that arrives in pieces.
///
/// Knows all types of RESP2 and RESP3, at any nesting. A stream that is not RESP, such as TLS, is
/// recognised by its first byte.
#[derive(Debug, Default)]
pub(super) struct ReplyScanner {
    /// How many bytes of the message were scanned, so that none is scanned twice.
    position: usize,
    /// How far the line that starts at `position` was searched for its end.
    searched: usize,
    /// The end of the blob whose header was read.
    blob_end: Option<usize>,
    /// The number of elements still missing in each open aggregate, outermost first.
    missing: Vec<usize>,
}

/// Is this a message to a channel's subscribers, and not the answer to a command? In RESP3 it is a
/// push, in RESP2 an array like any other.
pub(super) fn is_message(reply: &[u8]) -> bool {
    [&b">3\r\n$7\r\nmessage\r\n"[..], b"*3\r\n$7\r\nmessage\r\n"]
        .iter()
        .any(|start| reply.starts_with(start))
}

/// Is this the answer to a replica? After it come the primary's data, which may be a blob without a
/// final line break, and then its commands.
pub(super) fn begins_replication(reply: &[u8]) -> bool {
    reply.starts_with(b"+FULLRESYNC ") || reply.starts_with(b"+CONTINUE")
}

/// The result of [`ReplyScanner::next`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scan {
    /// The buffer starts with a whole reply of this length.
    Reply(usize),
    /// The buffer starts with a whole push message of this length, which no command asked for.
    Push(usize),
    /// More bytes are needed.
    Incomplete,
    /// This is not RESP.
    Foreign,
}

impl ReplyScanner {
    /// Looks at `buffer`, which starts where the last message ended and holds at least what it
    /// held at the last call.
    pub(super) fn next(&mut self, buffer: &[u8]) -> Scan {
        loop {
            if let Some(end) = self.blob_end {
                if buffer.len() < end {
                    return Scan::Incomplete;
                }
                self.blob_end = None;
                self.position = end;
            } else {
                // Checked before the line is complete: bytes that are not RESP may have no lines.
                let Some(kind) = buffer.get(self.position).copied() else {
                    return Scan::Incomplete;
                };
                if !b"+-:_,#($!=*~>%|".contains(&kind) {
                    return Scan::Foreign;
                }
                let Some(line_end) = self.line_end(buffer) else {
                    return Scan::Incomplete;
                };
                let header = &buffer[self.position + 1..line_end];
                self.position = line_end + 2;
                if b"$!=*~>%|".contains(&kind) {
                    let Some(count) = count(header) else {
                        return Scan::Foreign;
                    };
                    if self.opens(kind, count) {
                        continue;
                    }
                }
            }
            if self.element_is_last() {
                let length = self.position;
                *self = Self::default();
                return if buffer[0] == b'>' { Scan::Push(length) } else { Scan::Reply(length) };
            }
        }
    }

    /// The position of the CR LF that ends the current line.
    fn line_end(&mut self, buffer: &[u8]) -> Option<usize> {
        let start = self.searched.max(self.position);
        let mut pairs = buffer.get(start..)?.windows(2);
        if let Some(found) = pairs.position(|pair| pair == b"\r\n") {
            return Some(start + found);
        }
        // The last byte may be a CR whose LF is still on its way.
        self.searched = start.max(buffer.len().saturating_sub(1));
        None
    }

    /// Handles the header of a value that continues after its line. A null or empty one does not.
    fn opens(&mut self, kind: u8, count: Option<usize>) -> bool {
        let Some(count) = count else {
            return false;
        };
        let missing = match kind {
            b'$' | b'!' | b'=' => {
                self.blob_end = Some(self.position + count + 2);
                return true;
            }
            b'%' => 2 * count,
            // Attributes come before the value that they belong to.
            b'|' => 2 * count + 1,
            _ => count,
        };
        if missing > 0 {
            self.missing.push(missing);
        }
        missing > 0
    }

    /// Counts an element that was read completely, and returns whether the message ends with it.
    fn element_is_last(&mut self) -> bool {
        while let Some(missing) = self.missing.last_mut() {
            *missing -= 1;
            if *missing > 0 {
                return false;
            }
            self.missing.pop();
        }
        true
    }
}

/// The number in a header: `Some(None)` for the -1 of a null, `None` if it is not a number.
fn count(header: &[u8]) -> Option<Option<usize>> {
    if header == b"-1" {
        return Some(None);
    }
    let count = std::str::from_utf8(header).ok()?.parse().ok()?;
    Some(Some(count))
}
