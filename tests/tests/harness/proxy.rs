//! Every fault of the proxy.

use std::{
    io,
    time::{Duration, Instant},
};

use lock_tests::{Direction, Proxy, RedisServer, eventually};
use redis::AsyncCommands;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{SILENCE, SOON, connect, ping};

const PING: &[u8] = b"PING\r\n";
const PONG: &[u8] = b"+PONG\r\n";

fn start() -> (RedisServer, Proxy) {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.port());
    (server, proxy)
}

/// A client without a protocol: bytes out, bytes in.
struct Raw(TcpStream);

impl Raw {
    async fn connect(proxy: &Proxy) -> Self {
        Self(TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap())
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    async fn receive(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let read = timeout(SOON, self.0.read_exact(&mut bytes)).await;
        read.unwrap().unwrap();
        bytes
    }

    async fn assert_answers(&mut self) {
        self.send(PING).await;
        assert_eq!(self.receive(PONG.len()).await, PONG);
    }

    async fn assert_silent(&mut self) {
        let read = timeout(SILENCE, self.0.read_u8()).await;
        assert!(read.is_err(), "{read:?} instead of silence");
    }

    async fn end(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = Vec::new();
        let read = timeout(SOON, self.0.read_to_end(&mut rest)).await.unwrap();
        read.map(|_| rest)
    }

    async fn assert_reset(&mut self) {
        let error = self.end().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn without_faults_it_only_counts() {
    let (server, proxy) = start();
    let mut connection = connect(&proxy.url(), SOON).await.unwrap();
    let before = (proxy.replies_seen(), proxy.bytes_to_server());
    let large = "x".repeat(1 << 20);
    let () = connection.set_ex("key", &large, 60).await.unwrap();
    let same: String = connection.get("key").await.unwrap();
    assert!(same == large);
    assert_eq!(proxy.replies_seen() - before.0, 2);
    assert!(proxy.bytes_to_server() - before.1 > 1 << 20);
    assert!(proxy.bytes_to_client() > 1 << 20);
    assert_eq!(proxy.connections_accepted(), 1);
    proxy.wait_for_connections(1).await;
    server.kill();
    ping(&mut connection).await.unwrap_err();
}

#[tokio::test]
async fn replies_can_be_waited_for_under_a_paused_clock() {
    let (_server, proxy) = start();
    let mut client = Raw::connect(&proxy).await;
    tokio::time::pause();
    client.send(PING).await;
    proxy.wait_for_replies(1).await;
}

#[tokio::test]
async fn a_blocked_runtime_does_not_stop_it() {
    use std::io::{Read, Write};
    let (_server, proxy) = start();
    let mut client = std::net::TcpStream::connect(("127.0.0.1", proxy.port())).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    client.write_all(PING).unwrap();
    let mut answer = [0; PONG.len()];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(answer, PONG);
}

#[tokio::test]
async fn a_black_hole_swallows_and_healing_resets() {
    let (server, proxy) = start();
    let mut client = Raw::connect(&proxy).await;
    let mut idle = Raw::connect(&proxy).await;
    client.assert_answers().await;
    idle.assert_answers().await;
    proxy.black_hole(Direction::Both);
    client.send(PING).await;
    client.assert_silent().await;
    let mut newcomer = Raw::connect(&proxy).await;
    newcomer.send(PING).await;
    newcomer.assert_silent().await;
    assert_eq!(proxy.replies_seen(), 2);

    proxy.heal();
    client.assert_reset().await;
    newcomer.assert_reset().await;
    idle.assert_answers().await;
    Raw::connect(&proxy).await.assert_answers().await;

    // The end of a connection is also swallowed.
    proxy.black_hole(Direction::Both);
    server.kill();
    idle.assert_silent().await;
    let mut newcomer = Raw::connect(&proxy).await;
    newcomer.assert_silent().await;
    proxy.heal();
    idle.assert_reset().await;
    newcomer.assert_reset().await;
}

#[tokio::test]
async fn a_black_hole_of_one_direction_executes_or_does_not() {
    let (server, proxy) = start();
    let set = |key: &str| format!("SET {key} 1 EX 60\r\n").into_bytes();
    for (direction, keys) in [(Direction::ToServer, 0), (Direction::ToClient, 1)] {
        let mut client = Raw::connect(&proxy).await;
        client.assert_answers().await;
        let replies = proxy.replies_seen();
        proxy.black_hole(direction);
        client.send(&set("key")).await;
        if direction == Direction::ToClient {
            proxy.wait_for_replies(replies + 1).await;
        }
        client.assert_silent().await;
        assert_eq!(server.keys().await.len(), keys, "{direction:?}");
        proxy.heal();
        client.assert_reset().await;
    }
}

#[tokio::test]
async fn what_was_held_arrives_when_the_network_heals() {
    let (_server, proxy) = start();
    for direction in [Direction::ToServer, Direction::ToClient, Direction::Both] {
        let mut client = Raw::connect(&proxy).await;
        proxy.hold(direction);
        client.send(b"ECHO a\r\nECHO b\r\n").await;
        client.assert_silent().await;
        proxy.heal();
        assert_eq!(client.receive(14).await, b"$1\r\na\r\n$1\r\nb\r\n");
        client.assert_answers().await;
    }
}

#[tokio::test]
async fn a_delay_is_latency_in_order() {
    let (_server, proxy) = start();
    let mut client = Raw::connect(&proxy).await;
    client.assert_answers().await;
    let delay = Duration::from_millis(60);
    proxy.delay(Direction::Both, delay);
    let start = Instant::now();
    client.assert_answers().await;
    assert!(start.elapsed() >= 2 * delay);

    // A hundred commands in flight are delayed once and not a hundred times.
    let start = Instant::now();
    let mut expected = Vec::new();
    for number in 0..100 {
        client.send(format!("ECHO {number:02}\r\n").as_bytes()).await;
        expected.extend(format!("$2\r\n{number:02}\r\n").bytes());
    }
    proxy.delay_between(Direction::ToClient, Duration::ZERO..=delay, 7);
    assert_eq!(client.receive(expected.len()).await, expected);
    assert!(start.elapsed() >= delay && start.elapsed() < 50 * delay);

    // Healing does not wait for a delay.
    proxy.delay(Direction::ToServer, Duration::from_secs(3600));
    client.send(PING).await;
    client.assert_silent().await;
    proxy.heal();
    assert_eq!(client.receive(PONG.len()).await, PONG);
}

/// A link to the other side of the world: each round trip takes long, but the throughput is high.
#[tokio::test]
async fn a_delay_is_for_new_connections_too_and_takes_no_throughput() {
    const COMMANDS: usize = 20_000;
    let (_server, proxy) = start();
    let one_way = Duration::from_millis(300);
    proxy.delay(Direction::Both, one_way);
    let client = Raw::connect(&proxy).await;
    let start = Instant::now();
    let (mut answers, mut commands) = client.0.into_split();
    let sending = tokio::spawn(async move {
        for _ in 0..COMMANDS {
            commands.write_all(PING).await.unwrap();
        }
        commands
    });
    let mut first = [0; PONG.len()];
    timeout(SOON, answers.read_exact(&mut first)).await.unwrap().unwrap();
    assert!(start.elapsed() >= 2 * one_way, "{:?}", start.elapsed());
    let mut rest = vec![0; (COMMANDS - 1) * PONG.len()];
    timeout(SOON, answers.read_exact(&mut rest)).await.unwrap().unwrap();
    // One after the other, they would take more than three hours.
    assert!(rest.chunks(PONG.len()).all(|answer| answer == PONG));
    drop(sending.await.unwrap());
}

#[tokio::test]
async fn a_reset_is_for_all_connections_and_for_now() {
    let (_server, proxy) = start();
    let mut clients = [Raw::connect(&proxy).await, Raw::connect(&proxy).await];
    clients[0].assert_answers().await;
    proxy.reset_connections();
    for client in &mut clients {
        client.assert_reset().await;
    }
    Raw::connect(&proxy).await.assert_answers().await;
}

#[tokio::test]
async fn refusing_is_for_new_connections_only() {
    let (_server, proxy) = start();
    let mut client = Raw::connect(&proxy).await;
    proxy.refuse_connections();
    let refused = TcpStream::connect(("127.0.0.1", proxy.port())).await;
    assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    client.assert_answers().await;
    proxy.heal();
    client.assert_answers().await;
    Raw::connect(&proxy).await.assert_answers().await;
}

#[tokio::test]
async fn a_cut_lets_the_bytes_before_it_through() {
    let (server, proxy) = start();
    let mut client = Raw::connect(&proxy).await;
    client.assert_answers().await;
    proxy.cut_after(Direction::ToClient, 10);
    client.send(b"PING\r\nPING\r\n").await;
    assert_eq!(client.end().await.unwrap(), b"+PONG\r\n+PO");

    // The server gets one and a half commands.
    let mut client = Raw::connect(&proxy).await;
    client.assert_answers().await;
    let commands = b"SET a 1 EX 60\r\nSET b 1 EX 60\r\n";
    proxy.cut_after(Direction::ToServer, commands.len() / 2 + 1);
    client.send(commands).await;
    let _ = client.end().await;
    assert_eq!(server.keys().await.len(), 1);
    Raw::connect(&proxy).await.assert_answers().await;
}

#[tokio::test]
async fn a_half_closed_connection_is_open_the_other_way() {
    let (server, proxy) = start();
    let mut client = Raw::connect(&proxy).await;
    proxy.half_close(Direction::ToClient);
    client.send(PING).await;
    assert_eq!(client.receive(PONG.len()).await, PONG);
    assert_eq!(client.0.read(&mut [0]).await.unwrap(), 0, "the end of what the server says");
    client.send(b"SET a 1 EX 60\r\n").await;
    eventually(SOON, async || server.keys().await.len() == 1).await;
    proxy.heal();
    Raw::connect(&proxy).await.assert_answers().await;
}

#[tokio::test]
async fn exactly_one_reply_is_dropped() {
    let (_server, proxy) = start();
    let mut client = Raw::connect(&proxy).await;
    proxy.drop_reply(2);
    client.send(b"ECHO a\r\nECHO b\r\nECHO c\r\n").await;
    assert_eq!(client.receive(14).await, b"$1\r\na\r\n$1\r\nc\r\n");
    assert_eq!(proxy.replies_seen(), 3);
    client.assert_answers().await;
}

#[tokio::test]
async fn a_cut_instead_of_a_reply_leaves_the_command_executed() {
    let (server, proxy) = start();
    let mut client = Raw::connect(&proxy).await;
    proxy.cut_instead_of_reply(2);
    client.send(b"SET a 1 EX 60\r\nSET b 1 EX 60\r\n").await;
    assert_eq!(client.end().await.unwrap(), b"+OK\r\n");
    assert_eq!(server.keys().await.len(), 2);
    Raw::connect(&proxy).await.assert_answers().await;

    // A fault that was healed in time does not strike.
    let mut client = Raw::connect(&proxy).await;
    proxy.cut_instead_of_reply(1);
    proxy.drop_reply(1);
    proxy.heal();
    client.assert_answers().await;
}

#[tokio::test]
async fn a_server_that_returns_is_reached_again() {
    let (server, proxy) = start();
    server.kill();
    // The reset may come before the client has noticed that it is connected.
    let mut byte = [0];
    let failed = match TcpStream::connect(("127.0.0.1", proxy.port())).await {
        Ok(mut client) => timeout(SOON, client.read_exact(&mut byte)).await.unwrap().map(drop),
        Err(error) => Err(error),
    };
    assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    server.restart();
    Raw::connect(&proxy).await.assert_answers().await;
}

#[tokio::test]
async fn tls_passes_through() {
    if RedisServer::leaves_out_tls() {
        return;
    }
    let server = RedisServer::builder().tls(true).start();
    let tls_port = server.tls_url();
    let tls_port = tls_port.rsplit(':').next().unwrap().trim_end_matches('/');
    let proxy = Proxy::start(tls_port.parse().unwrap());
    let certificates = redis::TlsCertificates {
        client_tls: None,
        root_cert: Some(server.certificate_authority().into()),
    };
    let url = proxy.url().replace("redis:", "rediss:");
    let client = redis::Client::build_with_tls(url, certificates).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    assert_eq!(ping(&mut connection).await.unwrap(), "PONG");
    assert_eq!(proxy.replies_seen(), 0);
}

#[tokio::test]
async fn dropping_it_closes_its_connections() {
    let (_server, proxy) = start();
    let mut client = Raw::connect(&proxy).await;
    client.assert_answers().await;
    drop(proxy);
    client.end().await.unwrap_or_default();
}

/// Messages of a subscription are lost, all of them or every second one; replies to commands are
/// not, in either protocol.
#[tokio::test]
async fn messages_can_be_dropped_and_replies_cannot() {
    let (server, proxy) = start();
    let mut publisher = server.connection().await;
    for hello in [&b""[..], b"HELLO 3\r\n"] {
        let is_resp3 = !hello.is_empty();
        let kind = if is_resp3 { '>' } else { '*' };
        let mut client = Raw::connect(&proxy).await;
        if is_resp3 {
            client.send(hello).await;
            // The length of the answer to HELLO depends on the server's modules.
            client.send(b"ECHO ready\r\n").await;
            let mut answer = Vec::new();
            while !answer.ends_with(b"\r\n$5\r\nready\r\n") {
                answer.extend(client.receive(1).await);
            }
            assert!(String::from_utf8_lossy(&answer).contains("proto\r\n:3\r\n"));
        }
        proxy.drop_messages(2);
        client.send(b"SUBSCRIBE news\r\n").await;
        let confirmed = format!("{kind}3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n");
        assert_eq!(client.receive(confirmed.len()).await, confirmed.as_bytes());
        for number in 1..=4 {
            let heard: i64 = publisher.publish("news", number).await.unwrap();
            assert_eq!(heard, 1);
        }
        let heard =
            |number: u8| format!("{kind}3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$1\r\n{number}\r\n");
        for number in [1, 3] {
            let expected = heard(number);
            assert_eq!(client.receive(expected.len()).await, expected.as_bytes());
        }
        client.assert_silent().await;
        proxy.drop_messages(1);
        let _: i64 = publisher.publish("news", 5).await.unwrap();
        client.assert_silent().await;
    }
}
