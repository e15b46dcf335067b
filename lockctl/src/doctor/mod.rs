//! `doctor`: whether a store is fit for locks.
//!
//! It asks the servers directly, one by one, and uses the library only at the end, so that it finds
//! what is wrong with a server whether or not the library works with it.

mod cluster;
mod findings;
mod health;
mod notices;
mod probe;
mod replicas;
mod rights;
mod sentinels;
mod server;
mod slots;
mod store;
mod timing;

use redis::RedisError;

use self::{
    findings::Findings,
    server::Server,
    store::{Kind, Store},
};
use crate::{
    arguments::Doctor,
    exit::{Exit, Failure, in_full},
    output::Output,
    target::Target,
};

pub(crate) async fn doctor(
    arguments: &Doctor,
    target: &Target,
    output: Output,
) -> Result<Exit, Failure> {
    // Mistakes in the URL or in a certificate are found without a connection.
    target.builder().build_lazy()?;
    let Some(store) = Store::new(target) else {
        return Err(Failure::usage("this URL cannot be read"));
    };
    let mut findings = Findings::default();
    match servers(&store, &mut findings).await {
        Ok((servers, kind)) => {
            if let Err(error) = examine(&servers, &kind, target, &mut findings).await {
                findings.failure(
                    "connect",
                    "",
                    format!("the connection broke: {error}"),
                    "check the network and the load of the server, and try again",
                );
            }
        }
        Err(error) => findings.no_connection(refusal(target, &error).await),
    }
    findings.report(arguments.strict, output)
}

/// The servers that keep locks, now or after a failover, and how they belong together.
async fn servers(
    store: &Store,
    findings: &mut Findings,
) -> Result<(Vec<Server>, Kind), RedisError> {
    match &store.kind {
        Kind::Watched(name) => {
            let Some(primary) = sentinels::check(store, name, findings).await? else {
                return Ok((Vec::new(), Kind::One));
            };
            let known = primary.info().await?.map(|info| health::replicas(&info));
            let replicas = replicas::connect(store, known.unwrap_or_default(), findings).await;
            let servers = std::iter::once(primary).chain(replicas).collect();
            Ok((servers, Kind::Watched(name.clone())))
        }
        Kind::Proxy => Ok((vec![Server::connect(store, &store.named[0]).await?], Kind::Proxy)),
        Kind::Cluster => {
            let seed = cluster::seed(store, findings).await?;
            Ok((cluster::check(store, seed, findings).await?, Kind::Cluster))
        }
        Kind::One => {
            let server = Server::connect(store, &store.named[0]).await?;
            let info = server.info().await?;
            let mode = info
                .as_ref()
                .and_then(|info| info.field("redis_mode").or_else(|| info.field("server_mode")));
            match mode {
                Some("cluster") => {
                    Ok((cluster::check(store, server, findings).await?, Kind::Cluster))
                }
                Some("sentinel") => {
                    let at = server.address.clone();
                    findings.failure(
                        "sentinels",
                        &at,
                        "it is a Sentinel, which keeps no locks",
                        format!("use redis+sentinel://{at}/NAME, with the name that SENTINEL MASTERS reports"),
                    );
                    Ok((Vec::new(), Kind::One))
                }
                _ => Ok((vec![server], Kind::One)),
            }
        }
    }
}

async fn examine(
    servers: &[Server],
    kind: &Kind,
    target: &Target,
    findings: &mut Findings,
) -> Result<(), RedisError> {
    if servers.is_empty() {
        return Ok(());
    }
    let in_slots = matches!(kind, Kind::Cluster | Kind::Proxy);
    let mut offsets = Vec::new();
    let mut hears = true;
    for server in servers {
        match server.info().await? {
            Some(info) => health::check(server, &info, kind, findings).await,
            None => findings.warning(
                "version",
                &server.address,
                "this user may not use INFO, so version, replication, memory and persistence are not \
                 checked",
                "allow `+info`, or check as another user",
            ),
        }
        offsets.extend(timing::check(server, findings).await?);
        // The notices of a replica matter only once it is the primary, and then work as at any
        // primary.
        let may_subscribe = server.is_replica || notices::check(server, findings).await;
        hears &= may_subscribe;
        rights::check(server, &target.prefix, in_slots, may_subscribe, findings).await?;
    }
    timing::compare(&offsets, findings);
    let ids = slots::ids(servers, kind, &target.prefix).await?;
    let probed = match ids[..] {
        [] => Err(Failure::new(Exit::Failed, "no server grants locks")),
        _ => probe::check(target, &ids, hears, findings).await,
    };
    if let Err(failure) = probed {
        findings.failure(
            "locks",
            "",
            failure.message,
            "fix what the other checks found; if they found nothing, report this",
        );
    }
    Ok(())
}

/// Why there is no connection, in the words of the library, whose errors say more.
async fn refusal(target: &Target, error: &RedisError) -> Failure {
    match target.builder().build().await {
        Err(refused) => Failure { message: in_full(&refused), ..refused.into() },
        Ok(_) => Failure::new(Exit::Failed, format!("the connection failed once: {error}")),
    }
}
