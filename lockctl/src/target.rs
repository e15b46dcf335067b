//! The store that the command line or the environment names, and everything needed to reach it.

use std::{env, fs, path::Path};

use lock::{Credentials, Locks, LocksBuilder};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::{
    arguments::{Connection, NAME},
    exit::Failure,
};

/// A store, as the user named it. Holds passwords, so it is never printed.
pub(crate) struct Target {
    pub(crate) url: String,
    pub(crate) prefix: String,
    /// The user, which may be empty, and the password, if the URL has none.
    pub(crate) login: Option<(String, String)>,
    pub(crate) sentinel_login: Option<(String, String)>,
    pub(crate) root_certificate: Option<Vec<u8>>,
    /// The certificate and its key.
    pub(crate) client_certificate: Option<(Vec<u8>, Vec<u8>)>,
}

impl Target {
    pub(crate) fn new(connection: &Connection, url: Option<&String>) -> Result<Self, Failure> {
        let url = match url.or(connection.url.as_ref()) {
            Some(url) => url.clone(),
            None => from_environment(|name| env::var(name).ok().filter(|value| !value.is_empty()))?,
        };
        if url.trim_start().to_ascii_lowercase().starts_with("memory:") {
            return Err(Failure::usage(
                "only the process itself sees the locks in its memory: name a server",
            ));
        }
        let read = |path: &Option<_>| path.as_deref().map(file).transpose();
        let password = |path: &Option<_>| path.as_deref().map(password).transpose();
        let login = password(&connection.password_file)?
            .map(|password| (connection.user.clone().unwrap_or_default(), password));
        let sentinel_user = connection.sentinel_user.clone();
        let sentinel_user = sentinel_user.or_else(|| env::var("LOCK_SENTINEL_USER").ok());
        let sentinel_password = match password(&connection.sentinel_password_file)? {
            Some(password) => Some(password),
            None => env::var("LOCK_SENTINEL_PASSWORD").ok().filter(|word| !word.is_empty()),
        };
        let is_watched = url.split(':').next().is_some_and(|scheme| scheme.ends_with("+sentinel"));
        let sentinel_login = match (sentinel_user, sentinel_password) {
            (user, Some(password)) if is_watched => Some((user.unwrap_or_default(), password)),
            (Some(_), None) if is_watched => {
                return Err(Failure::usage(
                    "the user for the Sentinels has no password: give --sentinel-password-file, or \
                     set LOCK_SENTINEL_PASSWORD",
                ));
            }
            // Without Sentinels, these variables are ignored: the environment may serve several
            // stores.
            _ => None,
        };
        let key = read(&connection.client_key)?;
        Ok(Self {
            url,
            prefix: connection.prefix.clone(),
            login,
            sentinel_login,
            root_certificate: read(&connection.root_certificate)?,
            client_certificate: read(&connection.client_certificate)?.zip(key),
        })
    }

    /// A builder of the library for this store.
    pub(crate) fn builder(&self) -> LocksBuilder {
        let mut builder = Locks::builder().url(&self.url).prefix(&self.prefix);
        if let Some((user, password)) = &self.login {
            let known = Credentials::new(user, password);
            builder = builder.credentials(move || {
                let known = known.clone();
                async move { Ok::<_, std::convert::Infallible>(known) }
            });
        }
        if let Some((user, password)) = &self.sentinel_login {
            builder = builder.sentinel_credentials(user, password);
        }
        if let Some(pem) = &self.root_certificate {
            builder = builder.root_certificate(pem.as_slice());
        }
        if let Some((pem, key)) = &self.client_certificate {
            builder = builder.client_certificate(pem.as_slice(), key.as_slice());
        }
        builder
    }

    pub(crate) async fn connect(&self) -> Result<Locks, Failure> {
        Ok(self.builder().build().await?)
    }
}

/// Reads the variables that [`Locks::from_env`] reads. The library reports what is wrong with a URL
/// when it gets it.
fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Result<String, Failure> {
    if let Some(url) = ["LOCK_URL", "REDIS_URL"].into_iter().find_map(&variable) {
        return Ok(url);
    }
    let both = (variable("UPSTASH_REDIS_REST_URL"), variable("UPSTASH_REDIS_REST_TOKEN"));
    let (Some(address), Some(token)) = both else {
        return Err(Failure::usage(format!(
            "no store is named: give --url, or set LOCK_URL or REDIS_URL, or both \
             UPSTASH_REDIS_REST_URL and UPSTASH_REDIS_REST_TOKEN (see {NAME} --help)"
        )));
    };
    let host = address.strip_prefix("https://").unwrap_or(&address).trim_end_matches('/');
    if host.is_empty() || host.contains(['/', '@', '?', '#', ':']) {
        return Err(Failure::usage(
            "UPSTASH_REDIS_REST_URL is not of the form https://HOST: copy it from the Upstash \
             console, or set LOCK_URL",
        ));
    }
    let token = utf8_percent_encode(&token, NON_ALPHANUMERIC);
    Ok(format!("rediss://default:{token}@{host}:6379"))
}

fn file(path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|error| {
        Failure::usage(format!("the file {} cannot be read: {error}", path.display()))
    })
}

/// Reads a password from a file, without the line break at the end of the file.
fn password(path: &Path) -> Result<String, Failure> {
    let text = String::from_utf8(file(path)?).map_err(|_| {
        Failure::usage(format!("the password in the file {} is not UTF-8", path.display()))
    })?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(Failure::usage(format!("the file {} is empty", path.display())));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<String, String> {
        let value = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        from_environment(value).map_err(|failure| failure.message)
    }

    #[test]
    fn the_environment_is_read_in_the_order_of_the_library() {
        let mut all = vec![
            ("UPSTASH_REDIS_REST_URL", "https://eu1-x.upstash.io"),
            ("UPSTASH_REDIS_REST_TOKEN", "AX/y+z=="),
        ];
        let upstash = "rediss://default:AX%2Fy%2Bz%3D%3D@eu1-x.upstash.io:6379";
        assert_eq!(read(&all), Ok(upstash.to_owned()));
        all.push(("REDIS_URL", "redis://b/"));
        assert_eq!(read(&all), Ok("redis://b/".to_owned()));
        all.push(("LOCK_URL", "redis://a/"));
        assert_eq!(read(&all), Ok("redis://a/".to_owned()));
    }

    #[test]
    fn an_environment_without_a_store_is_refused_and_shows_no_token() {
        for variables in [
            &[][..],
            &[("UPSTASH_REDIS_REST_TOKEN", "hush")],
            &[("UPSTASH_REDIS_REST_TOKEN", "hush"), ("UPSTASH_REDIS_REST_URL", "http://u:hush@h")],
        ] {
            let message = read(variables).unwrap_err();
            assert!(message.contains("LOCK_URL") && !message.contains("hush"), "{message}");
        }
    }
}
