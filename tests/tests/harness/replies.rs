//! What the proxy counts as one reply in the bytes of a server.

use lock_tests::Proxy;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Bytes of a server, and the number of replies in them.
const STREAMS: &[(&str, u64)] = &[
    ("+OK\r\n", 1),
    ("-ERR no\r\n:1\r\n", 2),
    ("$5\r\na\r\nbc\r\n$0\r\n\r\n$-1\r\n", 3),
    ("*-1\r\n*0\r\n*2\r\n:1\r\n*2\r\n$1\r\na\r\n*0\r\n", 3),
    ("%2\r\n+a\r\n:1\r\n+b\r\n*1\r\n%0\r\n", 1),
    ("~2\r\n+a\r\n+b\r\n", 1),
    ("_\r\n,1.5\r\n,inf\r\n#t\r\n(123456789012345678901234567890\r\n", 5),
    ("=7\r\ntxt:a\r\n\r\n!5\r\nERR a\r\n", 2),
    (">2\r\n+invalidate\r\n*1\r\n+key\r\n", 0),
    ("+OK\r\n>1\r\n+hi\r\n:2\r\n", 2),
    ("|1\r\n+ttl\r\n:5\r\n*1\r\n+a\r\n+next\r\n", 2),
    ("\u{16}\u{3}\r\n+OK\r\n", 0),
    ("*1\r\n$?\r\n", 0),
    // A data file has no line break after it.
    ("+PONG\r\n+OK\r\n+FULLRESYNC 8371 1\r\n$5\r\nREDIS*1\r\n$4\r\nPING\r\n", 3),
    ("+CONTINUE 8371\r\n*1\r\n$4\r\nPING\r\n", 1),
];

/// Sends `bytes` through a proxy in pieces of `size`, and returns the replies that it counted.
async fn count(bytes: &[u8], size: usize) -> u64 {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(server.local_addr().unwrap().port());
    let mut client = TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap();
    let (mut upstream, _) = server.accept().await.unwrap();
    upstream.set_nodelay(true).unwrap();
    for piece in bytes.chunks(size) {
        upstream.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    drop(upstream);
    let mut received = Vec::new();
    client.read_to_end(&mut received).await.unwrap();
    assert_eq!(received, bytes);
    assert_eq!(proxy.bytes_to_client(), bytes.len() as u64);
    proxy.replies_seen()
}

#[tokio::test]
async fn every_type_is_counted_in_pieces_of_every_size() {
    for (stream, replies) in STREAMS {
        for size in [1, 3, usize::MAX] {
            let counted = count(stream.as_bytes(), size).await;
            assert_eq!(counted, *replies, "{stream:?} in pieces of {size}");
        }
    }
}
