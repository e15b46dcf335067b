//! URLs of a primary that Sentinels watch:
//! `redis[s]+sentinel://[[user]:password@]host[:port][,host[:port]..]/name[/database]`.
//!
//! User, password and database are those of the servers. Sentinels have credentials of their own,
//! for which a URL has no place.

use super::{Certificates, endpoint, hosts};
use crate::{Credentials, Error, store::redis::Watched};

const SENTINEL_PORT: u16 = 26379;

/// `scheme` is that of a server: `redis` or `rediss`.
pub(super) fn parse(
    scheme: &str,
    rest: &str,
    certificates: &Certificates,
    credentials: Option<&Credentials>,
) -> Result<Watched, Error> {
    let rest = rest.strip_prefix("//").ok_or_else(unreadable)?;
    let (authority, path) = rest.split_once('/').ok_or_else(nameless)?;
    let path = path.strip_suffix('/').unwrap_or(path);
    let (name, database) = match path.split_once('/') {
        Some((name, database)) => (name, format!("/{database}")),
        None => (path, String::new()),
    };
    // The characters that Sentinels allow.
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    if name.is_empty() || !name.bytes().all(allowed) {
        return Err(nameless());
    }
    let (user, hosts) = hosts::parse(authority, SENTINEL_PORT).ok_or_else(unreadable)?;
    let sentinel = |host| {
        let sentinel = endpoint(&format!("{scheme}://{host}"), certificates)?;
        let Some(credentials) = credentials else { return Ok(sentinel) };
        let known = credentials.given_to(sentinel.client()).map_err(|_| unreadable())?;
        Ok(sentinel.with_client(known))
    };
    let sentinels = hosts.into_iter().map(sentinel).collect::<Result<_, Error>>()?;
    // The host is a placeholder: the Sentinels name the real one.
    let server = endpoint(&format!("{scheme}://{user}localhost{database}"), certificates)?;
    Ok(Watched { name: name.to_owned(), sentinels, server })
}

fn unreadable() -> Error {
    Error::invalid(
        "this URL cannot be read: its form must be redis[s]+sentinel://[[user]:password@]\
         host[:port],host[:port]/NAME[/database], with the hosts of the Sentinels, the name that \
         they have for the primary, and the user, password and database of the servers",
    )
}

fn nameless() -> Error {
    Error::invalid(
        "this URL does not name the primary: add its name after the Sentinels, as in \
         redis+sentinel://host,host/NAME; SENTINEL MASTERS lists it",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorKind, store::redis::Endpoint};

    fn parsed(rest: &str) -> Result<Watched, Error> {
        let credentials = Credentials::new("watcher", "w");
        parse("redis", rest, &Certificates::default(), Some(&credentials))
    }

    #[test]
    fn hosts_name_and_what_is_for_the_servers_are_told_apart() {
        let watched = parsed("//user:p%40ss@h1,h2:7000,[::1],[::2]:7001/main.db-1_x/3").unwrap();
        assert_eq!(watched.name, "main.db-1_x");
        let shown =
            |endpoint: &Endpoint| endpoint.client().get_connection_info().addr().to_string();
        let hosts: Vec<_> = watched.sentinels.iter().map(shown).collect();
        assert_eq!(hosts, ["h1:26379", "h2:7000", "::1:26379", "::2:7001"]);
        let server = watched.server.client().get_connection_info().redis_settings().clone();
        assert_eq!((server.username(), server.password()), (Some("user"), Some("p@ss")));
        assert_eq!(server.db(), 3);
        for sentinel in &watched.sentinels {
            let settings = sentinel.client().get_connection_info().redis_settings().clone();
            assert_eq!((settings.username(), settings.password()), (Some("watcher"), Some("w")));
            assert_eq!(settings.db(), 0);
        }
    }

    #[test]
    fn what_lacks_hosts_or_a_name_is_refused_without_repeating_it() {
        for rest in [
            "",
            "//",
            "//secret@h",
            "//secret@h/",
            "//secret@h,/main",
            "//,h/main",
            "//secret@/main",
            "//h/ma in",
            "//h/secret{",
            "//h:port/main",
            "//h/main/secret",
            "//h?secret,i/main",
            "//h#secret,i/main",
            "/h/main",
        ] {
            let Err(error) = parsed(rest) else { panic!("{rest} was taken") };
            assert_eq!(error.kind(), ErrorKind::Invalid, "{rest}");
            assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
        }
    }
}
