//! Certificates of clients, and precise errors about certificates of servers.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use lock::{Error, ErrorKind, Locks, LocksBuilder};
use lock_tests::{Certificates, ClientCertificate, RedisServer, Sentinels, eventually};
use redis::{Client, ClientTlsConfig, TlsCertificates};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::common::{WatchedServer, ms};

/// For these tests only: the harness's library makes no keys of this kind.
const RSA: &str = include_str!("certificates/rsa.key");

/// In 1.3, the server checks the client's certificate when the handshake is already complete for
/// the client.
const VERSIONS: [&str; 2] = ["TLSv1.3", "TLSv1.2"];

const WANTS: &str = "TLS failed: the server requires a client certificate";
const REFUSES: &str = "TLS failed: the server does not accept the client certificate";

fn server(version: &str) -> WatchedServer {
    let builder = RedisServer::builder().tls(true).tls_auth_clients(true);
    WatchedServer::start(builder.flag("--tls-protocols", version))
}

fn builder(server: &RedisServer) -> LocksBuilder {
    Locks::builder().url(server.tls_url()).root_certificate(server.certificate_authority())
}

fn showing(server: &RedisServer, own: &ClientCertificate) -> LocksBuilder {
    builder(server).client_certificate(&*own.certificate, &*own.key)
}

/// A client that redis-rs opens TLS for.
fn of_client(server: &RedisServer, own: Option<&ClientCertificate>) -> LocksBuilder {
    let client_tls = own.map(|own| ClientTlsConfig {
        client_cert: own.certificate.clone().into_bytes(),
        client_key: own.key.clone().into_bytes(),
    });
    let root_cert = Some(server.certificate_authority().as_bytes().to_vec());
    let certificates = TlsCertificates { client_tls, root_cert };
    Locks::builder().client(Client::build_with_tls(server.tls_url(), certificates).unwrap())
}

async fn works(builder: LocksBuilder) {
    let locks = builder.build().await.unwrap();
    locks.lock("a").acquire().await.unwrap().release().await.unwrap();
}

async fn refused(builder: LocksBuilder, kind: ErrorKind, says: &str) -> String {
    let error = builder.build().await.unwrap_err();
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{error:?}");
    assert!(text.contains(says), "{text:?} does not say {says:?}");
    assert!(text.contains("127.0.0.1:"), "it names the server: {text}");
    text
}

/// The key inside PKCS#8, which begins with the kind of the key.
fn unwrapped(pkcs8: &str, wrapping: usize, label: &str) -> String {
    let text: String = pkcs8.lines().filter(|line| !line.starts_with("-----")).collect();
    let inner = BASE64_STANDARD.encode(&BASE64_STANDARD.decode(text).unwrap()[wrapping..]);
    format!("-----BEGIN {label}-----\n{inner}\n-----END {label}-----\n")
}

#[tokio::test]
async fn a_client_is_known_by_its_certificate() {
    if RedisServer::leaves_out_tls() {
        return;
    }
    for version in VERSIONS {
        let server = server(version);
        let certificates = server.certificates();
        let pkcs8 = certificates.client();
        works(showing(&server, &pkcs8)).await;
        works(of_client(&server, Some(&pkcs8))).await;
        // The key without its wrapping.
        let sec1 = unwrapped(&pkcs8.key, 29, "EC PRIVATE KEY");
        works(builder(&server).client_certificate(&*pkcs8.certificate, sec1)).await;
        let rsa = certificates.client_of(RSA, 2100);
        works(builder(&server).client_certificate(&*rsa.certificate, RSA)).await;
        let pkcs1 = unwrapped(RSA, 26, "RSA PRIVATE KEY");
        works(builder(&server).client_certificate(&*rsa.certificate, pkcs1)).await;
        // One file with both, as some tools write it.
        let both = format!("{}{}", pkcs8.key, pkcs8.certificate);
        works(builder(&server).client_certificate(&*both, &*both)).await;
    }
    // If notices come on a connection of their own, that one also presents the certificate.
    let server = RedisServer::builder().tls(true).tls_auth_clients(true);
    let server = WatchedServer::start(server.flags(["--rename-command", "HELLO", ""]));
    let locks = showing(&server, &server.certificates().client()).build().await.unwrap();
    let shown = format!("{locks:?}");
    assert!(shown.contains("delivery: \"pub/sub\""), "{shown}");
}

/// Each case is tried often: now and then, the server's alert is lost because it had not read all
/// data before it closed the connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_wants_another_certificate_says_so() {
    if RedisServer::leaves_out_tls() {
        return;
    }
    for version in VERSIONS {
        let server = server(version);
        let stranger = Certificates::generate().client();
        let expired = server.certificates().client_of(RSA, 2020);
        for _ in 0..10 {
            let kind = ErrorKind::Rejected;
            let text = refused(builder(&server), kind, WANTS).await;
            assert!(text.contains("`client_certificate`"), "{text}");
            let text = refused(showing(&server, &stranger), kind, REFUSES).await;
            assert!(text.contains("(the server does not know the authority"), "{text}");
            let text = refused(showing(&server, &expired), kind, REFUSES).await;
            assert!(text.contains("(it has expired)"), "{text}");
            refused(of_client(&server, Some(&stranger)), kind, REFUSES).await;
            // A client that the user has built does not report whether it was asked for a
            // certificate.
            let kind = if version == "TLSv1.2" { ErrorKind::Unavailable } else { kind };
            refused(of_client(&server, None), kind, "the server requires a client certificate")
                .await;
        }
        let locks = builder(&server).build_lazy().unwrap();
        let error = locks.lock("a").acquire().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "it may be tried again");
        assert!(error.to_string().contains(WANTS), "{error}");
        works(showing(&server, &server.certificates().client())).await;
    }
}

/// As when the server's alert is lost: the connection ends after the handshake, without a message.
#[tokio::test]
async fn a_server_whose_words_were_lost_is_heard_again() {
    if RedisServer::leaves_out_tls() {
        return;
    }
    let server = server("TLSv1.3");
    let between = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("rediss://{}/", between.local_addr().unwrap());
    let pass = async {
        for connection in 0.. {
            let (mut client, _) = between.accept().await.unwrap();
            let mut server = TcpStream::connect(("127.0.0.1", server.tls_port())).await.unwrap();
            if connection > 0 {
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                continue;
            }
            // Passes the client's first message and the server's answer, and drops the client's
            // reply.
            let (mut said, mut answered) = ([0; 4096], [0; 4096]);
            let length = client.read(&mut said).await.unwrap();
            server.write_all(&said[..length]).await.unwrap();
            loop {
                tokio::select! {
                    length = server.read(&mut answered) => {
                        client.write_all(&answered[..length.unwrap()]).await.unwrap();
                    }
                    _ = client.read(&mut said) => break,
                }
            }
        }
    };
    let authority = server.certificate_authority();
    let refused =
        refused(Locks::builder().url(url).root_certificate(authority), ErrorKind::Rejected, WANTS);
    tokio::select! { _ = refused => {}, () = pass => {} }
}

/// Checks the error's text, and that building fails before any attempt to connect.
fn invalid(builder: LocksBuilder, says: &[&str]) {
    let error: Error = builder.build_lazy().unwrap_err();
    let text = error.to_string();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
    for part in says {
        assert!(text.contains(part), "{text:?} does not say {part:?}");
    }
    assert!(std::error::Error::source(&error).is_none(), "a source could quote it: {error:?}");
    for secret in ["-----", "MII", "MIG", "hush"] {
        assert!(!format!("{error:?} {text}").contains(secret), "it is shown: {error:?}");
    }
}

#[tokio::test]
async fn certificates_and_keys_that_cannot_be_are_refused_and_never_told() {
    let certificates = Certificates::generate();
    let (own, other) = (certificates.client(), certificates.client());
    let (certificate, key) = (&*own.certificate, &*own.key);
    for url in ["rediss://127.0.0.1:1/", "rediss+sentinel://127.0.0.1:1/main"] {
        let builder = || Locks::builder().url(url).root_certificate(certificates.authority());
        let with = |certificate: &str, key: &str| builder().client_certificate(certificate, key);
        invalid(with(key, certificate), &["swapped", "the certificate comes first"]);
        invalid(with("hush", key), &["first argument", "no certificate"]);
        invalid(with("", key), &["first argument", "no certificate"]);
        invalid(with(key, key), &["first argument", "no certificate"]);
        let half = &certificate[..certificate.len() / 2];
        invalid(with(half, key), &["first argument", "damaged"]);
        invalid(with(&certificate.replace('a', "!"), key), &["first argument", "damaged"]);
        invalid(with(certificate, "hush"), &["second argument", "no private key", "PKCS#8"]);
        invalid(with(certificate, certificate), &["second argument", "no private key"]);
        invalid(with(certificate, &key[..key.len() / 2]), &["second argument", "damaged"]);
        for begin in
            ["ENCRYPTED PRIVATE KEY-----\n", "EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n"]
        {
            let encrypted = format!("-----BEGIN {begin}aHVzaA==\n-----END {begin}");
            invalid(
                with(certificate, &encrypted),
                &["second argument", "password", "openssl pkey"],
            );
        }
        let nonsense = "-----BEGIN PRIVATE KEY-----\naHVzaA==\n-----END PRIVATE KEY-----\n";
        invalid(with(certificate, nonsense), &["second argument", "P-256"]);
        let nonsense = "-----BEGIN CERTIFICATE-----\naHVzaA==\n-----END CERTIFICATE-----\n";
        invalid(with(nonsense, key), &["first argument", "X.509"]);
        invalid(with(certificate, &other.key), &["do not belong together"]);
        // The chain in the wrong order.
        let chain = format!("{}{certificate}", certificates.authority());
        invalid(with(&chain, key), &["do not belong together", "is the first"]);
    }
    for url in ["redis://127.0.0.1:1/", "redis+sentinel://127.0.0.1:1/main", "unix:///a", "memory:"]
    {
        let builder = Locks::builder().url(url).client_certificate(certificate, key);
        invalid(builder, &["a client certificate", "`rediss://`"]);
    }
    let client = Client::open("rediss://127.0.0.1:1/").unwrap();
    let builder = Locks::builder().client(client).client_certificate(certificate, key);
    invalid(builder, &["a client certificate", "`Client::build_with_tls`"]);
    let store = lock::store::MemoryStore::new();
    let builder = Locks::builder().store(store).root_certificate(certificates.authority());
    invalid(builder, &["a root certificate", "`rediss://`"]);
    let shown = format!("{:?}", Locks::builder().client_certificate(certificate, key));
    assert!(!shown.contains("-----"), "{shown}");
}

#[tokio::test]
async fn what_is_wrong_with_a_servers_certificate_is_named() {
    if RedisServer::leaves_out_tls() {
        return;
    }
    let good = Certificates::generate();
    let here = ["127.0.0.1", "localhost"];
    let kind = ErrorKind::Unavailable;
    for (certificates, says) in [
        (
            good.for_server(&["db.example", "*.other.example"], 2000, 2100),
            &["not for `127.0.0.1` but for `db.example`, `*.other.example`", "connect to a name"][..],
        ),
        (good.for_server(&[], 2000, 2100), &["names no host", "`127.0.0.1`", "alternative name"]),
        (good.for_server(&here, 2000, 2020), &["expired on 2020-01-01 00:00 UTC", "renew it"]),
        (good.for_server(&here, 2090, 2100), &["not valid before 2090-01-01 00:00 UTC", "clock"]),
        // An authority of the same name, with another key.
        (Certificates::generate(), &["an authority that is not trusted", "`root_certificate`"]),
    ] {
        let server = RedisServer::builder().certificates(&certificates).start();
        let own = || Locks::builder().url(server.tls_url()).root_certificate(good.authority());
        let client = || {
            let root_cert = Some(good.authority().as_bytes().to_vec());
            let certificates = TlsCertificates { client_tls: None, root_cert };
            Client::build_with_tls(server.tls_url(), certificates).unwrap()
        };
        for text in [
            refused(own(), kind, "TLS failed: the server's certificate").await,
            refused(Locks::builder().client(client()), kind, "TLS failed: ").await,
        ] {
            for part in says {
                assert!(text.contains(part), "{text:?} does not say {part:?}");
            }
        }
    }
    let server = RedisServer::builder().certificates(&good).start();
    let itself = Certificates::signing_itself();
    let builder = Locks::builder().url(server.tls_url()).root_certificate(itself.authority());
    refused(builder, kind, "an authority that is not trusted").await;
    // A self-signed certificate, as `openssl req -x509` makes it.
    let server = RedisServer::builder().certificates(&itself).start();
    let authority = server.certificate_authority();
    let builder = Locks::builder().url(server.tls_url()).root_certificate(authority);
    refused(builder, kind, "TLS failed: the server's certificate is that of an authority").await;
}

#[tokio::test]
async fn what_two_sides_do_not_have_in_common_is_named() {
    if RedisServer::leaves_out_tls() {
        return;
    }
    let flags = ["--tls-protocols", "TLSv1.2", "--tls-ciphers", "ECDHE-ECDSA-AES128-SHA"];
    let server = RedisServer::builder().tls(true).flags(flags).start();
    for builder in [builder(&server), of_client(&server, None)] {
        let text = refused(builder, ErrorKind::Unavailable, "TLS failed: the two sides").await;
        assert!(text.contains("no version or cipher in common"), "{text}");
    }
    let text = refused(
        Locks::builder()
            .url("rediss://-127.0.0.1:1/")
            .root_certificate(server.certificate_authority()),
        ErrorKind::Invalid,
        "not a name that a certificate could contain",
    );
    text.await;
}

/// To most servers, the start of TLS is a line that does not end, so they say nothing.
#[tokio::test]
async fn a_server_without_tls_is_found_out() {
    let server = WatchedServer::start(RedisServer::builder());
    let url = format!("rediss://127.0.0.1:{}/", server.port());
    let own = Locks::builder().url(&*url).root_certificate(Certificates::generate().authority());
    let certificates = TlsCertificates { client_tls: None, root_cert: None };
    let of_client = Locks::builder().client(Client::build_with_tls(url, certificates).unwrap());
    let says = "the server answers without TLS";
    tokio::join!(
        refused(own, ErrorKind::Unavailable, says),
        refused(of_client, ErrorKind::Unavailable, says)
    );
}

/// A running service learns it from its calls.
#[tokio::test]
async fn a_certificate_that_expires_is_named_when_the_connection_breaks() {
    if RedisServer::leaves_out_tls() {
        return;
    }
    let server = WatchedServer::start(RedisServer::builder().tls(true));
    let locks = builder(&server).build().await.unwrap();
    locks.lock("a").acquire().await.unwrap().release().await.unwrap();
    let good = server.certificates();
    server.replace_certificates(&good.for_server(&["127.0.0.1"], 2000, 2020));
    server.restart();
    let says = "TLS failed: the server's certificate expired on 2020-01-01";
    eventually(ms(20_000), async || {
        let error = locks.lock("a").try_acquire().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        if error.to_string().contains(says) { Ok(()) } else { Err(error) }
    })
    .await;
    // And goes on once it is renewed.
    server.replace_certificates(good);
    server.restart();
    let acquired = locks.lock("a").wait(ms(20_000)).acquire().await.unwrap();
    acquired.release().await.unwrap();
}

/// The Sentinels and all servers only speak TLS, and require a certificate of every client.
#[tokio::test(flavor = "multi_thread")]
async fn sentinels_and_their_servers_are_reached_over_tls() {
    if RedisServer::leaves_out_tls() {
        return;
    }
    let certificates = Certificates::generate();
    let sentinels = Sentinels::start_with_tls(&certificates).await;
    let url = sentinels.url();
    assert!(url.starts_with("rediss+sentinel://"), "{url}");
    let without = || Locks::builder().url(&*url).root_certificate(certificates.authority());
    let with = |own: ClientCertificate| without().client_certificate(own.certificate, own.key);
    let locks = with(certificates.client()).build().await.unwrap();
    let patience = ms(20_000);
    let held = locks.lock("held").lease(patience).acquire().await.unwrap();
    let old = sentinels.primary().await;
    let mut connection = old.connection().await;
    let mut wait = redis::cmd("WAIT");
    let replicas: usize = wait.arg(2).arg(5000).query_async(&mut connection).await.unwrap();
    assert_eq!(replicas, 2);
    let new = sentinels.fail_over().await;
    assert_ne!(new.port(), old.port());
    let next = locks.lock("next").wait(patience).acquire().await.unwrap();
    assert!(next.fencing_token() > held.fencing_token());
    let counts = new.commands().await;
    assert!(counts.calls("evalsha") + counts.calls("eval") > 0, "the new primary has granted it");
    assert!(held.is_held());
    held.release().await.unwrap();

    // The Sentinels are asked first.
    let kind = ErrorKind::Rejected;
    let text = refused(without(), kind, WANTS).await;
    assert!(text.contains("none of the Sentinels at"), "{text}");
    refused(with(Certificates::generate().client()), kind, REFUSES).await;
    let foreign = Certificates::generate();
    let foreign = Locks::builder().url(&*url).root_certificate(foreign.authority());
    refused(foreign, ErrorKind::Unavailable, "an authority that is not trusted").await;
    // The reverse also fails.
    let plain = Locks::builder().url(url.replace("rediss", "redis"));
    let error = plain.build().await.unwrap_err();
    assert!(error.to_string().contains("the server requires TLS"), "{error}");
}
