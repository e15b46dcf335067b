//! What URLs of several servers have in common.

use crate::Error;

/// IPv6 addresses also have colons, and are in brackets.
fn has_port(host: &str) -> bool {
    host.rsplit_once(']').map_or(host, |(_, behind)| behind).contains(':')
}

/// User and password as they are written in a URL, and each host with its port, from the part
/// between `//` and the path. `None` if that part does not have this form.
pub(super) fn parse(authority: &str, port: u16) -> Option<(String, Vec<String>)> {
    let (user, hosts) = match authority.rsplit_once('@') {
        Some((user, hosts)) => (format!("{user}@"), hosts),
        None => (String::new(), authority),
    };
    let host = |host: &str| {
        let is_one = !host.is_empty() && !host.contains(['?', '#']);
        is_one.then(|| if has_port(host) { host.to_owned() } else { format!("{host}:{port}") })
    };
    Some((user, hosts.split(',').map(host).collect::<Option<_>>()?))
}

/// The URL of a server without `?slots=1`, and whether it was there.
pub(super) fn without_slots(url: &str) -> Result<(String, bool), Error> {
    let Some((before, query)) = url.split_once('?') else { return Ok((url.to_owned(), false)) };
    let is_slots = |word: &&str| word.split('=').next() == Some("slots");
    let (slots, others): (Vec<_>, Vec<_>) = query.split('&').partition(is_slots);
    match slots[..] {
        [] => Ok((url.to_owned(), false)),
        ["slots=1"] if others.is_empty() => Ok((before.to_owned(), true)),
        ["slots=1"] => Ok((format!("{before}?{}", others.join("&")), true)),
        _ => Err(Error::invalid(
            "`slots` in the URL must be 1, for a proxy in front of a Redis Cluster, or be left out",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_taken_from_the_query_and_nothing_else_is() {
        let read = |url| without_slots(url).map_err(|error| error.to_string());
        for (url, rest, slots) in [
            ("redis://h/0", "redis://h/0", false),
            ("redis://h/0?slots=1", "redis://h/0", true),
            ("redis://h?protocol=resp3", "redis://h?protocol=resp3", false),
            ("unix:///s?slots=1&db=1", "unix:///s?db=1", true),
            ("unix:///s?db=1&slots=1&user=u", "unix:///s?db=1&user=u", true),
        ] {
            assert_eq!(read(url), Ok((rest.to_owned(), slots)), "{url}");
        }
        for url in ["redis://h?slots", "redis://h?slots=2", "redis://h?slots=1&slots=1"] {
            let error = read(url).unwrap_err();
            assert!(error.contains("`slots`"), "{error}");
        }
    }
}
