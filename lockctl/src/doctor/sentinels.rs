//! The Sentinels: whether they can be reached, whether they agree, and whether there are enough.

use std::collections::{BTreeMap, BTreeSet};

use redis::{RedisError, Value};
use tokio::time::timeout;

use super::{
    findings::Findings,
    server::{PATIENCE, Server, texts},
    store::Store,
};

const CHECK: &str = "sentinels";
/// A failover takes up to 2 s longer than this, and has to be shorter than 0.57 of the default
/// lease: see docs/deploying.md.
const LATE_MILLIS: u64 = 3_500;

/// Checks the Sentinels, and connects to the primary that they name. If none of them can be asked,
/// returns the last error.
pub(crate) async fn check(
    store: &Store,
    name: &str,
    findings: &mut Findings,
) -> Result<Option<Server>, RedisError> {
    let mut last = None;
    let mut named = BTreeMap::<(String, u16), Vec<String>>::new();
    let mut reached = 0;
    for info in &store.named {
        let at = info.addr().to_string();
        match ask(store, info, name).await {
            Ok(Some((address, state))) => {
                reached += 1;
                named.entry(address).or_default().push(at.clone());
                settings(&state, store.named.len(), &at, findings);
                hears(store, info, findings).await;
            }
            Ok(None) => {
                reached += 1;
                findings.failure(
                    CHECK,
                    &at,
                    format!("it knows no primary with the name {name}"),
                    "use the name that SENTINEL MASTERS reports",
                );
            }
            Err(error) => {
                findings.warning(
                    CHECK,
                    &at,
                    format!("it cannot be asked: {error}"),
                    "start it, open the network to it, or check its user and password (--sentinel-user)",
                );
                last = Some(error);
            }
        }
    }
    let addresses: Vec<_> = named.keys().map(|(host, port)| format!("{host}:{port}")).collect();
    if named.len() > 1 {
        findings.failure(
            CHECK,
            "",
            format!("they name different primaries: {}", addresses.join(", ")),
            "wait if a failover is under way; otherwise SENTINEL RESET on those that are wrong",
        );
    }
    // If they differ, the primary that most of them name.
    let most = named.into_iter().max_by_key(|(_, by)| by.len());
    let Some(((host, port), by)) = most else {
        return match last {
            Some(error) if reached == 0 => Err(error),
            _ => Ok(None),
        };
    };
    if addresses.len() == 1 {
        let all = store.named.len();
        findings.ok(CHECK, "", format!("{} of {all} name {host}:{port}", by.len()));
    }
    match Server::connect(store, &store.server_at(&host, port)).await {
        Ok(server) => Ok(Some(server)),
        Err(error) => {
            findings.failure(
                CHECK,
                "",
                format!("the primary that they name, {host}:{port}, accepts no connection from here: {error}"),
                "configure the servers to announce an address that clients can reach \
                 (`replica-announce-ip`, and `sentinel monitor` with that address), or open the \
                 network to it",
            );
            Err(error)
        }
    }
}

/// Checks that this user can subscribe to the notice of a failover.
async fn hears(store: &Store, info: &redis::ConnectionInfo, findings: &mut Findings) {
    let subscribe = async {
        let mut subscriber = store.client(info)?.get_async_pubsub().await?;
        subscriber.subscribe("+switch-master").await
    };
    if !matches!(timeout(PATIENCE, subscribe).await, Ok(Ok(()))) {
        findings.failure(
            CHECK,
            &info.addr().to_string(),
            "this user may not subscribe to this Sentinel. The library learns of failovers through \
             subscriptions, so it does not use this Sentinel",
            "allow `+subscribe` on the channel `&+switch-master` (docs/servers.md, \"Rights\")",
        );
    }
}

type State = BTreeMap<String, String>;

/// The address of the primary, and how the Sentinel watches it.
async fn ask(
    store: &Store,
    info: &redis::ConnectionInfo,
    name: &str,
) -> Result<Option<((String, u16), State)>, RedisError> {
    let sentinel = Server::connect(store, info).await?;
    let questions: [&[&str]; 2] =
        [&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", name], &["SENTINEL", "MASTER", name]];
    let mut answers = sentinel.ask(&questions).await?.into_iter();
    let address = match answers.next() {
        Some(Value::ServerError(error)) => return Err(error.into()),
        answer => answer.and_then(texts),
    };
    let state = answers.next().and_then(texts).unwrap_or_default();
    let pairs = state.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone()));
    let Some([host, port]) = address.as_deref() else { return Ok(None) };
    let Ok(port) = port.parse() else { return Ok(None) };
    Ok(Some(((host.clone(), port), pairs.collect())))
}

fn settings(state: &State, named: usize, at: &str, findings: &mut Findings) {
    let number = |name: &str| state.get(name).and_then(|value| value.parse::<u64>().ok());
    let words: BTreeSet<_> =
        state.get("flags").map(|flags| flags.split(',').collect()).unwrap_or_default();
    if words.contains("s_down") || words.contains("o_down") {
        findings.warning(
            CHECK,
            at,
            "it sees the primary as down",
            "wait for the failover, or check the primary and the network between them",
        );
    }
    if let Some(others) = number("num-other-sentinels") {
        let all = usize::try_from(others + 1).unwrap_or(usize::MAX);
        if all < 3 {
            findings.warning(
                CHECK,
                "",
                format!(
                    "the number of Sentinels is {all}: if one of them fails, the others cannot \
                     start a failover"
                ),
                "run three Sentinels or more, on separate machines",
            );
        }
        if all > named {
            findings.warning(
                CHECK,
                "",
                format!("the URL names {named} of {all} Sentinels: the others are not used"),
                "name all Sentinels in the URL",
            );
        }
    }
    if number("quorum") == Some(1) {
        findings.warning(
            CHECK,
            "",
            "the quorum is 1: a single Sentinel that is cut off starts a failover",
            "SENTINEL SET NAME quorum 2, on each",
        );
    }
    if let Some(millis) = number("down-after-milliseconds").filter(|millis| *millis > LATE_MILLIS) {
        findings.warning(
            CHECK,
            "",
            format!(
                "a primary counts as down only after {millis} ms: locks with the default lease of 10 s \
                 may be lost in a failover"
            ),
            "SENTINEL SET NAME down-after-milliseconds 2000, on each; or choose longer leases",
        );
    }
}
