//! Why TLS failed, in words that a person can act on.

use std::{error::Error as StdError, io, sync::Arc, time::Duration};

use tokio_rustls::rustls::{
    AlertDescription, CertificateError, Error, OtherError,
    pki_types::{ServerName, UnixTime},
};

use crate::ErrorKind;

/// How many names of a certificate an error repeats.
const NAMES: usize = 5;

/// What is known about the use of the client's own certificate.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::store::redis) struct Shown {
    /// The server has asked for it.
    pub(in crate::store::redis) asked: bool,
    /// The client has one. A client of the user's own does not say.
    pub(in crate::store::redis) has_one: Option<bool>,
}

/// The error of TLS inside another.
pub(in crate::store::redis) fn find<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e Error> {
    type Shared = Arc<dyn StdError + Send + Sync>;

    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(shared) = error.downcast_ref::<Shared>() {
            next = Some(&**shared);
        } else if let Some(error) = error.downcast_ref::<io::Error>() {
            // Its `source` is the source of the inner error, and skips that error.
            next = error.get_ref().map(|inner| inner as &(dyn StdError + 'static));
        } else if let Some(error) = error.downcast_ref() {
            return Some(error);
        } else {
            next = error.source();
        }
    }
    None
}

/// A problem with the server's certificate is `Unavailable`: it is this side that refuses, nothing
/// was asked, and the operator may replace the certificate or set a clock while calls and connects
/// are retried. A server that refuses this client's certificate has judged the client, as with a
/// wrong password, which is `Rejected`.
pub(in crate::store::redis) fn diagnose(error: &Error, shown: Shown) -> (ErrorKind, String) {
    let (kind, said) = match error {
        Error::AlertReceived(alert) => of_alert(*alert, shown),
        Error::InvalidCertificate(error) => (ErrorKind::Unavailable, of_certificate(error)),
        Error::PeerIncompatible(_) => (ErrorKind::Unavailable, INCOMPATIBLE.to_owned()),
        Error::InvalidMessage(_) | Error::InappropriateMessage { .. } => {
            let text = "the program that answers there does not speak TLS, so check the port, or \
                        connect without TLS (`redis://`)";
            (ErrorKind::Unavailable, text.to_owned())
        }
        _ => (ErrorKind::Unavailable, OTHERWISE.to_owned()),
    };
    (kind, format!("TLS failed: {said}"))
}

const INCOMPATIBLE: &str = "the two sides have no version or cipher in common, so configure the \
                            server for TLS 1.3, or for 1.2 with an AES-GCM or ChaCha20 cipher and \
                            ECDHE";
const OTHERWISE: &str = "see the source of this error for the message of the TLS library, and \
                         check the server's certificate and its TLS settings";
const UNUSABLE: &str = "the server's certificate is not one that TLS can use, so issue another: of \
                        X.509 version 3, for servers, signed by an authority, with the host names \
                        as subject alternative names";

/// What the server's alert means. The server has seen no certificate but this client's.
fn of_alert(alert: AlertDescription, shown: Shown) -> (ErrorKind, String) {
    use AlertDescription as Alert;

    let because = match alert {
        Alert::CertificateRequired => "",
        Alert::CertificateExpired => " (it has expired)",
        Alert::CertificateRevoked => " (it was revoked)",
        Alert::UnknownCA => " (the server does not know the authority that signed it)",
        Alert::UnsupportedCertificate => " (it is not for clients, or of an unknown kind)",
        Alert::BadCertificate
        | Alert::NoCertificate
        | Alert::CertificateUnknown
        | Alert::AccessDenied => "",
        // Before TLS 1.3, a missing certificate has no alert of its own.
        Alert::HandshakeFailure if shown.asked => "",
        Alert::HandshakeFailure if shown.has_one.is_none() => {
            let text = format!(
                "{INCOMPATIBLE}; or, before TLS 1.3, the server requires a client certificate"
            );
            return (ErrorKind::Unavailable, text);
        }
        Alert::HandshakeFailure | Alert::ProtocolVersion | Alert::InsufficientSecurity => {
            return (ErrorKind::Unavailable, INCOMPATIBLE.to_owned());
        }
        Alert::UnrecognisedName => {
            let text = "the server does not know the host name in the URL, so check its spelling";
            return (ErrorKind::Unavailable, text.to_owned());
        }
        _ => return (ErrorKind::Unavailable, OTHERWISE.to_owned()),
    };
    let is_missing = match shown.has_one {
        Some(has_one) => !has_one,
        None => alert == Alert::CertificateRequired,
    };
    let text = if is_missing {
        "the server requires a client certificate, so give one with `client_certificate`, or to \
         the `redis::Client`"
            .to_owned()
    } else {
        format!(
            "the server does not accept the client certificate{because}, so give one for clients, \
             signed by an authority that the server trusts"
        )
    };
    (ErrorKind::Rejected, text)
}

fn of_certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::NotValidForNameContext { expected, presented } => {
            let host = host(expected);
            match &names(presented)[..] {
                [] => format!(
                    "the server's certificate names no host at all, so issue one with `{host}` as \
                     a subject alternative name (a common name does not count)"
                ),
                names => format!(
                    "the server's certificate is not for `{host}` but for {}, so connect to a name \
                     in it, or issue one for this name",
                    names.join(", ")
                ),
            }
        }
        CertificateError::NotValidForName => "the server's certificate is not for this host, so \
                                              connect to a name in it, or issue one for this host"
            .to_owned(),
        // `BadSignature`: an authority of that name is trusted here, and it has another key.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => "the server's \
                                                                             certificate is signed \
                                                                             by an authority that \
                                                                             is not trusted here, \
                                                                             so give that \
                                                                             authority with \
                                                                             `root_certificate` \
                                                                             (or to the \
                                                                             `redis::Client`), or \
                                                                             configure the server \
                                                                             to send all \
                                                                             intermediate \
                                                                             certificates"
            .to_owned(),
        CertificateError::ExpiredContext { not_after, .. } => format!(
            "the server's certificate expired on {}, so renew it, or check the clock of this \
             machine",
            date(*not_after)
        ),
        CertificateError::Expired => "the server's certificate has expired, so renew it, or check \
                                      the clock of this machine"
            .to_owned(),
        CertificateError::NotValidYetContext { not_before, .. } => format!(
            "the server's certificate is not valid before {}, so wait until then, issue another, \
             or check the clock of this machine",
            date(*not_before)
        ),
        CertificateError::NotValidYet => "the server's certificate is not valid yet, so issue \
                                          another, or check the clock of this machine"
            .to_owned(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "the server's certificate is not for servers, so issue one that is (extended key \
             usage: server authentication)"
                .to_owned()
        }
        // What `openssl req -x509` makes by default.
        CertificateError::Other(OtherError(error))
            if format!("{error:?}").contains("CaUsedAsEndEntity") =>
        {
            "the server's certificate is that of an authority, which TLS does not allow a server \
             to use, so let that authority sign one for the server"
                .to_owned()
        }
        CertificateError::Revoked => {
            "the server's certificate was revoked, so issue another".to_owned()
        }
        _ => UNUSABLE.to_owned(),
    }
}

fn host(name: &ServerName<'_>) -> String {
    name.to_str().into_owned()
}

/// The names of a certificate come as `DnsName("a.example")` and `IpAddress(127.0.0.1)`.
fn names(presented: &[String]) -> Vec<String> {
    let name = |text: &String| {
        let (_, name) = text.strip_suffix(')')?.split_once('(')?;
        let name = name.trim_matches('"');
        // Although an authority has signed it, it is a stranger's text.
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_*:".contains(&byte);
        (!name.is_empty() && name.bytes().all(is_plain)).then(|| format!("`{name}`"))
    };
    let mut names: Vec<_> = presented.iter().filter_map(name).take(NAMES + 1).collect();
    if names.len() > NAMES {
        names[NAMES] = "others".to_owned();
    }
    names
}

/// In UTC, to the minute: the text must not change from one attempt to the next.
fn date(time: UnixTime) -> String {
    let minutes = Duration::from_secs(time.as_secs()).as_secs() / 60;
    let (days, minutes) = (minutes / (24 * 60), minutes % (24 * 60));
    // Days since the first of March of the year 0, so that a leap day is the last of its year.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", minutes / 60, minutes % 60)
}

#[cfg(test)]
mod tests {
    use redis::RedisError;

    use super::*;

    #[test]
    fn the_error_is_found_however_it_is_wrapped() {
        let inner = Error::AlertReceived(AlertDescription::CertificateRequired);
        let io = || io::Error::new(io::ErrorKind::InvalidData, inner.clone());
        assert_eq!(find(&inner), Some(&inner));
        assert_eq!(find(&io()), Some(&inner));
        assert_eq!(find(&io::Error::other(io())), Some(&inner));
        assert_eq!(find(&RedisError::from(io())), Some(&inner));
        assert_eq!(find(&RedisError::from(io::Error::from(io::ErrorKind::BrokenPipe))), None);
    }

    #[test]
    fn what_a_server_says_of_the_clients_certificate_depends_on_whether_there_is_one() {
        let said = |alert, asked, has_one| {
            diagnose(&Error::AlertReceived(alert), Shown { asked, has_one })
        };
        let wants = "requires a client certificate";
        let refuses = "does not accept the client certificate";
        for (alert, asked, has_one, kind, says) in [
            (AlertDescription::CertificateRequired, true, Some(false), ErrorKind::Rejected, wants),
            (AlertDescription::CertificateRequired, false, None, ErrorKind::Rejected, wants),
            // Some servers send this if there is none.
            (AlertDescription::BadCertificate, true, Some(false), ErrorKind::Rejected, wants),
            (AlertDescription::BadCertificate, true, Some(true), ErrorKind::Rejected, refuses),
            (AlertDescription::UnknownCA, false, None, ErrorKind::Rejected, refuses),
            (AlertDescription::HandshakeFailure, true, Some(false), ErrorKind::Rejected, wants),
            (AlertDescription::HandshakeFailure, true, Some(true), ErrorKind::Rejected, refuses),
            (
                AlertDescription::HandshakeFailure,
                false,
                Some(true),
                ErrorKind::Unavailable,
                "cipher in common",
            ),
            (AlertDescription::HandshakeFailure, false, None, ErrorKind::Unavailable, wants),
            (
                AlertDescription::ProtocolVersion,
                false,
                Some(false),
                ErrorKind::Unavailable,
                "version",
            ),
            (
                AlertDescription::InternalError,
                true,
                Some(false),
                ErrorKind::Unavailable,
                "the source",
            ),
        ] {
            let (found, text) = said(alert, asked, has_one);
            assert_eq!(found, kind, "{alert:?} {asked} {has_one:?}");
            assert!(text.starts_with("TLS failed: ") && text.contains(says), "{alert:?}: {text}");
        }
    }

    #[test]
    fn names_are_repeated_and_what_is_none_is_not() {
        let presented = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let of = |names: &[&str]| {
            let expected = ServerName::try_from("db.example").unwrap();
            of_certificate(&CertificateError::NotValidForNameContext {
                expected,
                presented: presented(names),
            })
        };
        let text = of(&["DnsName(\"*.a.example\")", "IpAddress(127.0.0.1)"]);
        assert!(
            text.contains("not for `db.example` but for `*.a.example`, `127.0.0.1`,"),
            "{text}"
        );
        for names in [&[][..], &["DirectoryName"], &["DnsName(\"a\u{1b}[31m\")"]] {
            let text = of(names);
            assert!(text.contains("names no host") && text.contains("`db.example`"), "{text}");
        }
        let many = ["DnsName(\"a\")"; 9];
        assert!(of(&many).contains("`a`, `a`, `a`, `a`, `a`, others,"), "{}", of(&many));
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, shown) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_399, "2000-02-28 23:59 UTC"),
            (951_782_400, "2000-02-29 00:00 UTC"),
            (951_868_800, "2000-03-01 00:00 UTC"),
            (1_767_225_599, "2025-12-31 23:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00 UTC"),
            (67_090_982_400, "4096-01-11 00:00 UTC"),
        ] {
            assert_eq!(date(UnixTime::since_unix_epoch(Duration::from_secs(seconds))), shown);
        }
    }
}
