//! URLs of a Cluster: `redis[s]+cluster://[[user]:password@]host[:port][,host[:port]..][/]`.

use super::{Certificates, endpoint, hosts};
use crate::{Error, store::redis::Endpoint};

const PORT: u16 = 6379;

/// Some nodes, which know the others. `scheme` is that of a server: `redis` or `rediss`.
pub(super) fn parse(
    scheme: &str,
    rest: &str,
    certificates: &Certificates,
) -> Result<Vec<Endpoint>, Error> {
    let rest = rest.strip_prefix("//").ok_or_else(unreadable)?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if !matches!(path, "" | "0") {
        return Err(Error::invalid(
            "a Redis Cluster has only database 0: leave out what follows the hosts",
        ));
    }
    let (user, hosts) = hosts::parse(authority, PORT).ok_or_else(unreadable)?;
    let seed = |host| endpoint(&format!("{scheme}://{user}{host}"), certificates);
    hosts.into_iter().map(seed).collect()
}

fn unreadable() -> Error {
    Error::invalid(
        "this URL cannot be read: its form must be redis[s]+cluster://[[user]:password@]\
         host[:port],host[:port], with one or more nodes of the Redis Cluster",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn parsed(rest: &str) -> Result<Vec<Endpoint>, Error> {
        parse("redis", rest, &Certificates::default())
    }

    #[test]
    fn each_host_is_a_node_with_the_same_user() {
        for end in ["", "/", "/0"] {
            let seeds = parsed(&format!("//user:p%40ss@h1,[::1]:7001{end}")).unwrap();
            let info = |seed: &Endpoint| seed.client().get_connection_info().clone();
            let hosts: Vec<_> = seeds.iter().map(|seed| info(seed).addr().to_string()).collect();
            assert_eq!(hosts, ["h1:6379", "::1:7001"]);
            for seed in &seeds {
                let settings = info(seed).redis_settings().clone();
                assert_eq!(
                    (settings.username(), settings.password()),
                    (Some("user"), Some("p@ss"))
                );
            }
        }
    }

    #[test]
    fn what_names_no_nodes_is_refused_without_repeating_it() {
        for rest in [
            "",
            "//",
            "//secret@",
            "//h,,i",
            "//h/secret",
            "//h/1",
            "//h?secret",
            "//h#secret",
            "//h:port",
            "/h",
        ] {
            let Err(error) = parsed(rest) else { panic!("{rest} was taken") };
            assert_eq!(error.kind(), ErrorKind::Invalid, "{rest}");
            assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
        }
    }
}
