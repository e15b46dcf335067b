//! What a server reports about itself: version, role, memory, persistence, clients.

use super::{
    findings::Findings,
    server::{Info, Server, setting},
    store::Kind,
};

/// Checks one server of a store of this `kind`.
pub(crate) async fn check(server: &Server, info: &Info, kind: &Kind, findings: &mut Findings) {
    let at = server.address.as_str();
    version(info, at, findings);
    if !server.is_replica {
        replication(info, kind, at, findings);
    }
    memory(info, at, findings);
    persistence(info, setting(server, "save").await.as_deref(), at, findings);
    clients(info, at, findings);
}

fn version(info: &Info, at: &str, findings: &mut Findings) {
    const CHECK: &str = "version";
    let is_valkey = info.field("valkey_version").is_some();
    let name = if is_valkey { "Valkey" } else { "Redis" };
    let number = info.field("valkey_version").or_else(|| info.field("redis_version"));
    if let Some(other) =
        ["dragonfly_version", "keydb_version"].iter().find_map(|name| info.field(name))
    {
        return findings.warning(
            CHECK,
            at,
            format!("{other}: the library is not tested on this server"),
            "see \"Read, not run\" in docs/servers.md for what is known about it",
        );
    }
    let Some(number) = number else {
        return findings.warning(
            CHECK,
            at,
            "the server does not report its version",
            "see docs/servers.md for the servers that the library is tested on",
        );
    };
    let numbers: Vec<u32> = number.split('.').filter_map(|part| part.parse().ok()).collect();
    let (since, until): (&[u32], &[u32]) =
        if is_valkey { (&[7, 2], &[10]) } else { (&[6, 2], &[9]) };
    let said = format!("{name} {number}");
    if &*numbers < [6].as_slice() {
        findings.failure(
            CHECK,
            at,
            format!("{said} is too old: the library is not made for servers before Redis 6.2"),
            "upgrade to Redis 6.2 or newer, or to Valkey",
        );
    } else if &*numbers < since || &*numbers >= until {
        findings.warning(
            CHECK,
            at,
            format!("{said} is not among the versions that the library is tested on"),
            "use Redis 6.2 to 8, or Valkey 7.2 to 9",
        );
    } else {
        findings.ok(CHECK, at, format!("{said}, which the library is tested on"));
    }
}

fn replication(info: &Info, kind: &Kind, at: &str, findings: &mut Findings) {
    const CHECK: &str = "replication";
    let Some(role) = info.field("role") else { return };
    if matches!(role, "slave" | "replica") {
        if info.field("slave_read_only") == Some("0") {
            return findings.failure(
                CHECK,
                at,
                "it is a writable replica: it grants locks that its primary has granted to others",
                "set `replica-read-only yes`, and use the URL of the primary",
            );
        }
        let primary = match (info.field("master_host"), info.field("master_port")) {
            (Some(host), Some(port)) => format!(", which it knows as {host}:{port}"),
            _ => String::new(),
        };
        return findings.failure(
            CHECK,
            at,
            "it is a read-only replica, which grants no locks",
            format!("use the URL of its primary{primary}, or redis+sentinel://"),
        );
    }
    let replicas = info.number("connected_slaves").unwrap_or(0);
    let late: Vec<_> = info.lines().filter(|(name, value)| is_late_replica(name, value)).collect();
    if !late.is_empty() {
        findings.warning(
            CHECK,
            at,
            format!("{} of {replicas} replicas lag behind it", late.len()),
            "check their logs and the network: what they lack is lost in a failover",
        );
    }
    // The field exists only if writes need replicas.
    let needs_replicas = info.field("min_slaves_good_slaves").is_some();
    if matches!(kind, Kind::Watched(_)) {
        if replicas == 0 {
            findings.warning(
                CHECK,
                at,
                "the primary has no replica, so no Sentinel can replace it",
                "start a replica, or find out why it does not follow",
            );
        }
        if !needs_replicas {
            return findings.warning(
                CHECK,
                at,
                "the primary accepts writes without a replica: if it is cut off, it continues to \
                 grant locks, which the next primary does not know",
                "set `min-replicas-to-write 1` and `min-replicas-max-lag 2` on all servers",
            );
        }
    }
    let writes = if needs_replicas { "; it accepts writes only while replicas follow" } else { "" };
    match replicas {
        0 => findings.ok(CHECK, at, "a primary without replicas: no locks while it is down"),
        _ => findings.ok(CHECK, at, format!("a primary; replicas: {replicas}{writes}")),
    }
}

/// The addresses of the replicas, as their primary knows them.
pub(crate) fn replicas(info: &Info) -> Vec<(String, u16)> {
    let address = |(name, value)| {
        is_replica(name).then_some(())?;
        Some((part(value, "ip")?.to_owned(), part(value, "port")?.parse().ok()?))
    };
    info.lines().filter_map(address).collect()
}

/// `slave0:ip=127.0.0.1,port=7001,state=online,offset=14,lag=0`
fn is_late_replica(name: &str, value: &str) -> bool {
    let is_in_step = part(value, "state") == Some("online")
        && part(value, "lag").is_none_or(|lag| lag.parse().is_ok_and(|lag: u32| lag <= 5));
    is_replica(name) && !is_in_step
}

fn is_replica(name: &str) -> bool {
    name.strip_prefix("slave").is_some_and(|number| number.parse::<u32>().is_ok())
}

fn part<'a>(value: &'a str, wanted: &str) -> Option<&'a str> {
    let mut parts = value.split(',').filter_map(|part| part.split_once('='));
    parts.find_map(|(name, value)| (name == wanted).then_some(value))
}

fn memory(info: &Info, at: &str, findings: &mut Findings) {
    const CHECK: &str = "memory";
    let policy = info.field("maxmemory_policy").unwrap_or("noeviction");
    let (limit, used) = (info.number("maxmemory"), info.number("used_memory"));
    let limit = limit.filter(|limit| *limit > 0);
    if let (Some(_), false) = (limit, policy == "noeviction") {
        let evicted = info.number("evicted_keys").unwrap_or(0);
        findings.failure(
            CHECK,
            at,
            format!(
                "the server evicts keys when its memory is full (maxmemory-policy {policy}; evicted so \
                 far: {evicted}): a lock that is evicted is granted again while it is held"
            ),
            "set `maxmemory-policy noeviction`, or use a separate server for locks",
        );
    } else if policy != "noeviction" {
        findings.warning(
            CHECK,
            at,
            format!(
                "the server evicts nothing, because it has no `maxmemory`; with one it would evict locks \
                 (maxmemory-policy {policy})"
            ),
            "set `maxmemory-policy noeviction` before somebody sets `maxmemory`",
        );
    } else {
        findings.ok(CHECK, at, "it evicts nothing (maxmemory-policy noeviction)");
    }
    if let (Some(limit), Some(used)) = (limit, used)
        && used > limit / 10 * 9
    {
        findings.warning(
            CHECK,
            at,
            format!(
                "{} % of its memory is in use: when it is full, it grants no new locks, but still renews \
                 those that are held",
                used.saturating_mul(100) / limit
            ),
            "raise `maxmemory`, or remove keys",
        );
    }
}

fn persistence(info: &Info, save: Option<&str>, at: &str, findings: &mut Findings) {
    const CHECK: &str = "persistence";
    let failed = |name: &str| info.field(name).is_some_and(|state| state != "ok");
    if failed("rdb_last_bgsave_status") || failed("aof_last_write_status") {
        findings.warning(
            CHECK,
            at,
            "the last write to its disk failed: depending on its settings, the server then refuses all \
             writes (MISCONF)",
            "check the free space and the permissions of its disk",
        );
    }
    if info.field("aof_enabled") == Some("1") {
        return findings.ok(
            CHECK,
            at,
            "an append-only file: a restart keeps the locks, except those of the last moment \
             before it (`appendfsync`)",
        );
    }
    let forgets = match save {
        Some("") => "nothing is kept on disk: a restart frees all locks",
        _ => {
            "no append-only file: a restart frees the locks that are newer than the last snapshot, \
             or all locks if there is none"
        }
    };
    findings.warning(
        CHECK,
        at,
        format!("{forgets}, even while they are held. Fencing tokens still grow"),
        "set `appendonly yes`, or have resources check fencing tokens",
    );
}

fn clients(info: &Info, at: &str, findings: &mut Findings) {
    let (now, limit) = (info.number("connected_clients"), info.number("maxclients"));
    if let (Some(now), Some(limit)) = (now, limit)
        && now > limit / 10 * 9
    {
        findings.warning(
            "clients",
            at,
            format!("{now} of {limit} connections are in use: further ones are refused"),
            "raise `maxclients`, or find out who holds the connections (CLIENT LIST)",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_and_how_late_they_are_are_read() {
        let info = Info::new(
            "role:master\r\nslave_read_only:0\r\n\
             slave0:ip=10.0.0.1,port=7001,state=online,offset=14,lag=0\r\n\
             slave1:ip=::1,port=7002,state=wait_bgsave,offset=0,lag=0\r\n\
             slave2:ip=h,port=7003,state=online,offset=0,lag=6\r\n"
                .to_owned(),
        );
        let at = |host: &str, port| (host.to_owned(), port);
        assert_eq!(replicas(&info), [at("10.0.0.1", 7001), at("::1", 7002), at("h", 7003)]);
        let late = info.lines().filter(|(name, value)| is_late_replica(name, value));
        assert_eq!(late.map(|(name, _)| name).collect::<Vec<_>>(), ["slave1", "slave2"]);
    }
}
