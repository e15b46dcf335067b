//! The codes of a server's errors, and what a person can do about each of them.

use redis::{ServerError, Value};

/// The code of a server's error. Before Redis 7, the error of a command in a script was text in an
/// error of the script: `ERR Error running script (call to f_..): @user_script:7: -NOREPLICAS ..`,
/// with the dash or without it.
pub(super) fn code(error: &ServerError) -> &str {
    // For a command in a script, Redis 7.0 says it in words.
    if error.details().is_some_and(|details| details.contains("user executing the script can't")) {
        return "NOPERM";
    }
    let within = error.details().filter(|_| error.code() == "ERR").and_then(|details| {
        let (_, inner) = details.rsplit_once("@user_script")?;
        let inner = inner.trim_start_matches(|c: char| c.is_ascii_digit() || c == ':' || c == ' ');
        let inner = inner.strip_prefix('-').unwrap_or(inner);
        let code = inner.split([' ', '\r', '\n']).next()?;
        let is_code = code.len() > 1 && code.bytes().all(|byte| byte.is_ascii_uppercase());
        is_code.then_some(code)
    });
    within.unwrap_or_else(|| error.code())
}

/// Whether a server that answers with this code has, for the moment, not done what it was asked. If
/// so, another try is worthwhile.
pub(super) fn is_passing(code: &str) -> bool {
    const PASSING: [&str; 10] = [
        "LOADING",
        "MASTERDOWN",
        "BUSY",
        "TRYAGAIN",
        "CLUSTERDOWN",
        // From a node of a Cluster: another one has the slot, and is found by the next try.
        "MOVED",
        "ASK",
        "NOREPLICAS",
        "MISCONF",
        "READONLY",
    ];
    PASSING.contains(&code)
}

/// Whether the server refuses to write because another one is the primary.
pub(super) fn is_from_replica(reply: &Value) -> bool {
    match reply {
        Value::ServerError(error) => matches!(code(error), "READONLY" | "MASTERDOWN"),
        _ => false,
    }
}

/// How a node of a Cluster answers a call that it has not carried out.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Redirect {
    /// Another node has the slot, at this address.
    Moved(String),
    /// The key is already at this address, or will be created there, and only this call has to go
    /// there.
    Ask(String),
    /// Some of the keys are here, and others have moved. Until the whole slot has moved, no node
    /// can do it.
    Halfway,
    /// It cannot serve anything for the moment, or is no longer a primary.
    Down,
}

pub(super) fn redirect(reply: &Value) -> Option<Redirect> {
    let Value::ServerError(error) = reply else { return None };
    // `MOVED slot host:port`
    let to = || Some(error.details()?.split(' ').nth(1)?.to_owned());
    match code(error) {
        "MOVED" => to().map(Redirect::Moved),
        "ASK" => to().map(Redirect::Ask),
        "TRYAGAIN" => Some(Redirect::Halfway),
        "CLUSTERDOWN" | "READONLY" | "MASTERDOWN" => Some(Redirect::Down),
        _ => None,
    }
}

pub(super) fn advice_for(code: &str, details: &str) -> &'static str {
    match code {
        "WRONGTYPE" => {
            "a key of this id has another type than the library expects, so choose another id or \
             prefix"
        }
        "OOM" => "its memory is full, so raise `maxmemory` or remove keys",
        "NOPERM" => {
            "this user may not run a command or touch a key that the library needs; \
             docs/servers.md lists the rights"
        }
        "READONLY" => "it is a read-only replica, so connect to its primary",
        "MASTERDOWN" => {
            "it is a replica that has lost its primary, so wait for the failover, or restore the \
             primary"
        }
        "LOADING" => "it is loading its data, so wait until that is done",
        "BUSY" => "a script of another client keeps it busy, so end that script with SCRIPT KILL",
        "NOREPLICAS" => {
            "too few replicas follow it, so restore them or lower `min-replicas-to-write`"
        }
        "MISCONF" => {
            "it cannot save its data to disk, so check the disk's free space and permissions"
        }
        "CLUSTERDOWN" => "its cluster is down, so wait for the failover or restore the lost slots",
        "TRYAGAIN" => "its keys are being moved, so wait until that is done",
        "MOVED" | "ASK" => {
            "another node of its cluster has the key by now, so try again; a URL with `?slots=1` is for a \
             proxy, and `redis+cluster://` for the nodes themselves"
        }
        "CROSSSLOT" => {
            "it is a node of a Redis Cluster, so use `redis+cluster://`; or it is a proxy in front \
             of such nodes, so append `?slots=1` to its URL"
        }
        "NOAUTH" => "it requires a user and a password, so put them into the URL",
        "ERR" if details.starts_with("unknown command") => {
            "it does not know EVALSHA, which every operation needs, so connect to a server that does"
        }
        _ => "see the source of this error for its answer",
    }
}

#[cfg(test)]
pub(super) mod tests {
    use redis::parse_redis_value;

    use super::*;

    pub(in crate::store::redis) fn server_error(line: &str) -> ServerError {
        match parse_redis_value(format!("-{line}\r\n").as_bytes()) {
            Ok(Value::ServerError(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn redirects_say_where_to() {
        let read = |line| redirect(&Value::ServerError(server_error(line)));
        let place = || "127.0.0.1:7001".to_owned();
        assert_eq!(read("MOVED 3999 127.0.0.1:7001"), Some(Redirect::Moved(place())));
        assert_eq!(read("ASK 3999 127.0.0.1:7001"), Some(Redirect::Ask(place())));
        assert_eq!(read("TRYAGAIN Multiple keys request"), Some(Redirect::Halfway));
        assert_eq!(read("CLUSTERDOWN The cluster is down"), Some(Redirect::Down));
        assert_eq!(read("WRONGTYPE Operation against a key"), None);
        assert_eq!(redirect(&Value::Int(1)), None);
    }

    #[test]
    fn the_code_of_an_error_in_a_script_is_found_in_every_version() {
        for (line, expected, passing) in [
            ("NOREPLICAS Not enough good replicas to write.", "NOREPLICAS", true),
            (
                "ERR Error running script (call to f_0b1c): @user_script:31: @user_script: 31: \
                 -NOREPLICAS Not enough good replicas to write.",
                "NOREPLICAS",
                true,
            ),
            (
                "ERR Error running script (call to f_0b1c): @user_script:7: -MISCONF Redis is \
                 configured to save RDB snapshots",
                "MISCONF",
                true,
            ),
            (
                "ERR Error running script (call to f_0b1c): @user_script:7: -READONLY You can't \
                 write against a read only replica.",
                "READONLY",
                true,
            ),
            (
                "READONLY You can't write against a read only replica. script: 5a, on \
                 @user_script:7.",
                "READONLY",
                true,
            ),
            ("WRONGTYPE Operation against a key", "WRONGTYPE", false),
            (
                "ERR Error running script (call to f_b085): @user_script:1: WRONGTYPE Operation \
                 against a key holding the wrong kind of value",
                "WRONGTYPE",
                false,
            ),
            (
                "ERR The user executing the script can't run this command or subcommand script: 5a, \
                 on @user_script:7.",
                "NOPERM",
                false,
            ),
            ("ERR user_script:7: something: -7 is negative", "ERR", false),
            ("TRYAGAIN Multiple keys request during rehashing of slot", "TRYAGAIN", true),
        ] {
            let error = server_error(line);
            assert_eq!(code(&error), expected, "{line}");
            assert_eq!(is_passing(expected), passing, "{line}");
        }
    }
}
