//! What the user may do: each command is tried once, in a form that changes nothing.
//!
//! `ACL DRYRUN` would report the same, but only from Redis 7 on, and only to a user that may run
//! it, which one with few rights may not. Besides, a real try also finds commands that a service
//! provider has removed.

use std::collections::BTreeSet;

use redis::{RedisError, Value};
use uuid::Uuid;

use super::{
    findings::Findings,
    server::{Server, text},
};

const CHECK: &str = "rights";

/// A command as it is tried, the right that it needs, and what does not work without that right:
/// nothing works, if that is `None`. `K` stands for a key, `C` for a channel.
type Try = (&'static str, &'static str, Option<&'static str>);

const SLOWLY: Option<&str> = Some("waiters poll four times a second instead of being woken");
const UNSEEN: Option<&str> = Some(
    "nobody is warned of eviction, a restart or a replica, and commands that were sent on a broken \
          connection may still be executed",
);
const AGAIN: Option<&str> =
    Some("after each connect, the first use of each operation also sends its script");
const UNLISTED: Option<&str> = Some("the commands `list`, `debounce` and `calls` list nothing");

const TRIES: &[Try] = &[
    ("PING", "+ping", None),
    ("EVALSHA 0123456789012345678901234567890123456789 0", "+evalsha", None),
    ("EVAL return{} 0", "+eval", None),
    ("GET K", "+get", None),
    ("MGET K", "+mget", None),
    // The key does not exist, so nothing is set.
    ("SET K 0 XX", "+set", None),
    ("DEL K", "+del", None),
    ("EXISTS K", "+exists", None),
    ("PTTL K", "+pttl", None),
    ("PEXPIRE K 1", "+pexpire", None),
    ("TIME", "+time", None),
    ("ZADD K XX 0 0", "+zadd", None),
    ("ZCARD K", "+zcard", None),
    ("ZCOUNT K 0 0", "+zcount", None),
    ("ZRANGE K 0 0", "+zrange", None),
    ("ZRANGEBYSCORE K 0 0", "+zrangebyscore", None),
    ("ZREM K 0", "+zrem", None),
    ("ZSCORE K 0", "+zscore", None),
    ("HGET K 0", "+hget", None),
    ("HGETALL K", "+hgetall", None),
    ("HDEL K 0", "+hdel", None),
    ("PUBLISH C 0", "+publish", SLOWLY),
    ("PUBSUB NUMSUB C", "+pubsub|numsub", SLOWLY),
    ("SCRIPT LOAD return{}", "+script|load", AGAIN),
    ("CLIENT ID", "+client|id", UNSEEN),
    // No client has this id.
    ("CLIENT KILL ID 9223372036854775807", "+client|kill", UNSEEN),
    ("INFO server", "+info", UNSEEN),
    ("SCAN 0 COUNT 1", "+scan", UNLISTED),
];

/// What is tried in addition at a node of a Cluster.
const CLUSTER_TRIES: &[Try] = &[
    ("CLUSTER SLOTS", "+cluster|slots", None),
    ("CLUSTER NODES", "+cluster|nodes", None),
    ("CLUSTER INFO", "+cluster|info", None),
    ("ASKING", "+asking", None),
];

/// What a user was refused.
#[derive(Default)]
struct Refused {
    /// Rights without which nothing works.
    needed: Vec<String>,
    /// Rights, grouped by what does not work without them.
    wanted: Vec<(&'static str, Vec<String>)>,
    /// Commands that the server does not know.
    unknown: BTreeSet<String>,
}

impl Refused {
    fn add(&mut self, right: &str, without: Option<&'static str>) {
        let rights = match without {
            None => &mut self.needed,
            Some(without) => match self.wanted.iter().position(|(known, _)| *known == without) {
                Some(at) => &mut self.wanted[at].1,
                None => {
                    self.wanted.push((without, Vec::new()));
                    &mut self.wanted.last_mut().expect("BUG: it was put there").1
                }
            },
        };
        if !rights.iter().any(|known| known == right) {
            rights.push(right.to_owned());
        }
    }
}

/// Checks the rights on one server. `may_subscribe` is false if SUBSCRIBE was refused.
pub(crate) async fn check(
    server: &Server,
    prefix: &str,
    in_slots: bool,
    may_subscribe: bool,
    findings: &mut Findings,
) -> Result<(), RedisError> {
    let id = format!("lockctl-doctor:{}", Uuid::new_v4().simple());
    let channel = format!("~wake:{id}");
    let own = if in_slots { format!("{{000}}{prefix}~{id}") } else { format!("{prefix}{id}") };
    let mut refused = Refused::default();
    let more = if in_slots { CLUSTER_TRIES } else { &[] };
    let tries: Vec<&Try> = TRIES.iter().chain(more).collect();
    let commands: Vec<Vec<&str>> = tries.iter().map(|one| words(one.0, &own, &channel)).collect();
    let commands: Vec<&[&str]> = commands.iter().map(Vec::as_slice).collect();
    for (one, answer) in tries.iter().zip(server.ask(&commands).await?) {
        let (command, right, without) = one;
        match verdict(&answer) {
            Verdict::Allowed => {}
            Verdict::Command => refused.add(right, *without),
            Verdict::Key => refused.add(&format!("~{}", pattern_of_own(prefix, in_slots)), None),
            Verdict::Channel => refused.add("&~wake:*", SLOWLY),
            Verdict::Unknown => {
                refused.unknown.insert(command.split(' ').next().unwrap_or(command).to_owned());
            }
        }
    }
    if !may_subscribe {
        refused.add("+subscribe", SLOWLY);
    }
    // HSET is the only try that writes, so it is made only if what it writes can be removed again.
    if !refused.needed.iter().any(|right| ["+hdel", "+pexpire"].contains(&right.as_str())) {
        let write: [&[&str]; 3] =
            [&["HSET", &own, "0", "0"], &["PEXPIRE", &own, "1000"], &["HDEL", &own, "0"]];
        let answer = server.ask(&write).await?.into_iter().next();
        if answer.is_some_and(|answer| matches!(verdict(&answer), Verdict::Command)) {
            refused.add("+hset", None);
        }
    }
    keys(server, prefix, in_slots, &id, &mut refused).await?;
    say(server, user(server).await, refused, findings);
    Ok(())
}

fn words<'a>(command: &'a str, key: &'a str, channel: &'a str) -> Vec<&'a str> {
    let word = |word| match word {
        "K" => key,
        "C" => channel,
        word => word,
    };
    command.split(' ').map(word).collect()
}

fn pattern_of_own(prefix: &str, in_slots: bool) -> String {
    if in_slots { format!("{{???}}{prefix}*") } else { format!("{prefix}*") }
}

/// Tries the names of keys with which the commands were not tried.
async fn keys(
    server: &Server,
    prefix: &str,
    in_slots: bool,
    id: &str,
    refused: &mut Refused,
) -> Result<(), RedisError> {
    let mut names = vec![(format!("{prefix}{id}"), format!("{prefix}*"))];
    if in_slots {
        names.push(("~fence:{000}".to_owned(), "~fence:{???}".to_owned()));
        names.push((format!("~queue:{{000}}:{prefix}{id}"), format!("~queue:{{???}}:{prefix}*")));
    } else {
        names.push(("~fence".to_owned(), "~fence".to_owned()));
        names.push((format!("~queue:{prefix}{id}"), format!("~queue:{prefix}*")));
    }
    for (name, pattern) in names {
        // A user may have the right to read a key, but not to write it. XX and NX exclude each
        // other, so this sets nothing; the server checks the rights first.
        let tries: [&[&str]; 3] = [&["GET"], &["EXISTS"], &["SET", "0", "XX", "NX"]];
        for words in tries {
            let mut command = vec![words[0], &name];
            command.extend(&words[1..]);
            let answer = server.ask(&[&command]).await?.pop();
            if answer.is_some_and(|answer| matches!(verdict(&answer), Verdict::Key)) {
                refused.add(&format!("~{pattern}"), None);
            }
        }
    }
    Ok(())
}

/// What an answer says about rights.
enum Verdict {
    /// No error, or one that is not about rights.
    Allowed,
    Command,
    Key,
    Channel,
    Unknown,
}

fn verdict(answer: &Value) -> Verdict {
    let Value::ServerError(error) = answer else { return Verdict::Allowed };
    let details = error.details().unwrap_or_default();
    match error.code() {
        // `No permissions to access a key`, `.. to access one of the channels used as arguments`
        "NOPERM" if details.contains("access") && details.contains("channel") => Verdict::Channel,
        "NOPERM" if details.contains("access") => Verdict::Key,
        "NOPERM" => Verdict::Command,
        "ERR" if details.to_ascii_lowercase().starts_with("unknown") => Verdict::Unknown,
        _ => Verdict::Allowed,
    }
}

/// Whether this was refused for want of a right.
pub(crate) fn is_refusal(error: &RedisError) -> bool {
    error.code() == Some("NOPERM")
}

/// The name of the user, as the server knows it.
async fn user(server: &Server) -> String {
    let asked = server.ask(&[&["ACL", "WHOAMI"]]).await;
    let told = asked.ok().and_then(|mut answers| text(answers.pop()?));
    let info = server.client.get_connection_info().redis_settings();
    told.or_else(|| info.username().map(str::to_owned)).unwrap_or_else(|| "default".to_owned())
}

fn say(server: &Server, user: String, refused: Refused, findings: &mut Findings) {
    let at = server.address.as_str();
    let has_all = refused.needed.is_empty() && refused.wanted.is_empty();
    let line = |rights: &[String]| {
        format!(
            "ACL SETUSER {user} {}, on each server, including the replicas (docs/servers.md, \"Rights\")",
            rights.join(" ")
        )
    };
    if !refused.needed.is_empty() {
        findings.failure(
            CHECK,
            at,
            format!("the user {user} lacks {}: locks do not work", refused.needed.join(" ")),
            line(&refused.needed),
        );
    }
    for (without, rights) in &refused.wanted {
        findings.warning(
            CHECK,
            at,
            format!("the user {user} lacks {}: {without}", rights.join(" ")),
            line(rights),
        );
    }
    if !refused.unknown.is_empty() {
        let names: Vec<_> = refused.unknown.into_iter().collect();
        findings.warning(
            CHECK,
            at,
            format!("the server does not know {}", names.join(", ")),
            "if they were renamed or removed, restore them; the library can do without some of them, as \
             the last check shows (docs/servers.md)",
        );
    } else if has_all {
        findings.ok(CHECK, at, format!("the user {user} has all rights that the library needs"));
    }
}

#[cfg(test)]
mod tests {
    use redis::parse_redis_value;

    use super::*;

    /// All rights that docs/servers.md lists are tried, except two.
    #[test]
    fn all_rights_of_the_documentation_are_tried() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/servers.md");
        let document = std::fs::read_to_string(path).unwrap();
        let lines = document.lines().filter(|line| line.starts_with("ACL SETUSER billing "));
        let rights = lines.flat_map(|line| line.split(' ')).filter(|word| word.starts_with('+'));
        let tried = TRIES.iter().chain(CLUSTER_TRIES).map(|one| one.1);
        let tried: BTreeSet<&str> = tried.chain(["+hset", "+subscribe"]).collect();
        for right in rights {
            // The first is needed only for `min_replicas`, and nothing depends on the second.
            let is_left_out = ["+wait", "+client|setinfo"].contains(&right);
            assert_ne!(tried.contains(right), is_left_out, "{right}");
        }
    }

    #[test]
    fn refusals_of_every_version_are_told_apart() {
        let read = |line: &str| parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap();
        let is =
            |line, wanted: fn(&Verdict) -> bool| assert!(wanted(&verdict(&read(line))), "{line}");
        for line in [
            "NOPERM this user has no permissions to run the 'hget' command or its subcommand",
            "NOPERM User billing has no permissions to run the 'hget' command",
        ] {
            is(line, |verdict| matches!(verdict, Verdict::Command));
        }
        for line in [
            "NOPERM this user has no permissions to access one of the keys used as arguments",
            "NOPERM No permissions to access a key",
        ] {
            is(line, |verdict| matches!(verdict, Verdict::Key));
        }
        for line in [
            "NOPERM this user has no permissions to access one of the channels used as arguments",
            "NOPERM No permissions to access a channel",
        ] {
            is(line, |verdict| matches!(verdict, Verdict::Channel));
        }
        is("ERR unknown command 'EVAL', with args beginning with:", |verdict| {
            matches!(verdict, Verdict::Unknown)
        });
        is("NOSCRIPT No matching script", |verdict| matches!(verdict, Verdict::Allowed));
    }
}
