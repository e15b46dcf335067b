//! TLS: what a connection trusts, and that the process's default provider is left alone.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use lock::{ErrorKind, Locks};
use lock_tests::{Certificates, RedisServer, Worker};
use redis::{Client, TlsCertificates};
use tokio::{io::AsyncWriteExt, net::TcpListener};

use crate::common::WatchedServer;

fn start(flags: &[&str]) -> (WatchedServer, tempfile::NamedTempFile) {
    let flags = flags.iter().copied();
    let server = WatchedServer::start(RedisServer::builder().tls(true).flags(flags));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), server.certificate_authority()).unwrap();
    (server, file)
}

fn worker(system_roots: &Path) -> Worker {
    let roots = [("SSL_CERT_FILE", system_roots), ("SSL_CERT_DIR", Path::new("/nowhere"))];
    Worker::start_with(roots, env!("CARGO_BIN_EXE_worker"))
}

/// An application can install its own cryptography provider at any time, and gets an error if there
/// already is one.
#[test]
fn the_default_provider_of_the_process_is_left_to_the_application() {
    if RedisServer::leaves_out_tls() {
        return;
    }
    for (flags, delivery) in
        [(&[][..], "push"), (&["--rename-command", "HELLO", ""][..], "pub/sub")]
    {
        let (server, authority) = start(flags);
        let mut worker = worker(authority.path());
        let url = server.tls_url();
        let ways = [
            format!("tls url {url}"),
            format!("tls client {url}"),
            format!("tls authority {} {url}", authority.path().display()),
        ];
        let served = |worker: &mut Worker, provider: &str| {
            for way in &ways {
                worker.tell(way);
                assert_eq!(worker.hear(), ["served", delivery, provider], "{way}");
            }
        };
        served(&mut worker, "none");
        worker.tell("install provider");
        assert_eq!(worker.hear(), ["installed", "true"]);
        // From now on, the connections use it.
        served(&mut worker, "default");
    }
}

/// Older servers, and some managed ones, support no newer version.
#[test]
fn tls_1_2_is_spoken_too() {
    if RedisServer::leaves_out_tls() {
        return;
    }
    let (server, authority) = start(&["--tls-protocols", "TLSv1.2"]);
    let mut worker = worker(authority.path());
    worker.tell(&format!("tls url {}", server.tls_url()));
    assert_eq!(worker.hear(), ["served", "push", "none"]);
}

/// A container may have no root certificates at all; an application's own client may bring some.
#[test]
fn a_system_without_roots_is_named_and_the_process_is_left_as_it_was() {
    if RedisServer::leaves_out_tls() {
        return;
    }
    let (server, authority) = start(&[]);
    let mut worker = worker(Path::new("/nowhere/roots.pem"));
    worker.tell(&format!("tls url {}", server.tls_url()));
    let refused = worker.hear();
    assert_eq!(refused[..3], ["refused", "none", "Unavailable"], "{refused:?}");
    assert!(refused.join(" ").contains("the system has no root certificates"), "{refused:?}");
    worker.tell(&format!("tls authority {} {}", authority.path().display(), server.tls_url()));
    assert_eq!(worker.hear(), ["served", "push", "none"]);
}

#[tokio::test]
async fn a_client_with_certificates_of_its_own_goes_by_them() {
    if RedisServer::leaves_out_tls() {
        return;
    }
    for flags in [&[][..], &["--rename-command", "HELLO", ""][..]] {
        let (server, _) = start(flags);
        let client = |authority: &str| {
            let root_cert = Some(authority.as_bytes().to_vec());
            let certificates = TlsCertificates { client_tls: None, root_cert };
            Client::build_with_tls(server.tls_url(), certificates).unwrap()
        };
        let of = async |client| Locks::builder().client(client).build().await;
        let locks = of(client(server.certificate_authority())).await.unwrap();
        locks.lock("a").acquire().await.unwrap().release().await.unwrap();
        let error = of(client(Certificates::generate().authority())).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains("TLS failed"), "{error}");
    }
}

#[tokio::test]
async fn what_does_not_speak_tls_is_reported_and_what_says_nothing_in_time() {
    let authority = Certificates::generate();
    let connect = async |url: String| {
        let builder = Locks::builder().url(url).root_certificate(authority.authority());
        let error = builder.build().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        error.to_string()
    };
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let began = Instant::now();
    let text = connect(format!("rediss://{}", silent.local_addr().unwrap())).await;
    assert!(text.contains("no answer to the connect within 6s"), "{text}");
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("rediss://{}", plain.local_addr().unwrap());
    let answers = async {
        while let Ok((mut stream, _)) = plain.accept().await {
            stream.write_all(b"-ERR unknown command\r\n").await.unwrap();
        }
    };
    tokio::select! {
        text = connect(url) => assert!(text.contains("TLS failed"), "{text}"),
        () = answers => {}
    }
}
