//! One client, its connection to the server, and the bytes between them.

use std::{
    future::pending,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    select,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    Shared,
    faults::{Arrival, Lane, Passage, ReplyFate},
    replies::{ReplyScanner, Scan, begins_replication, is_message},
};

const PIECE: usize = 64 * 1024;

/// State that a connection and the proxy's main task share.
#[derive(Clone, Debug, Default)]
pub(super) struct Handle {
    /// Resets the connection.
    pub(super) stop: CancellationToken,
    /// Whether bytes were swallowed, so that the connection is out of step after the fault.
    pub(super) lost_bytes: Arc<AtomicBool>,
}

/// Passes bytes both ways until one side ends, a fault cuts the connection, or the handle stops it.
pub(super) async fn relay(mut client: TcpStream, port: u16, shared: Arc<Shared>, handle: Handle) {
    let server = select! {
        biased;
        () = handle.stop.cancelled() => None,
        server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) => server.ok(),
    };
    let Some(mut server) = server else {
        return refuse(client, &shared, &handle).await;
    };
    // Small commands and replies must not wait for each other. A failure shows up as slowness.
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);

    let stopped = {
        let (client_reads, client_writes) = client.split();
        let (server_reads, server_writes) = server.split();
        let (to_server, commands) = Lane::ToServer.open(&shared, &handle);
        let (to_client, replies) = Lane::ToClient.open(&shared, &handle);
        let reading = async {
            tokio::join!(
                read_commands(client_reads, to_server),
                read_replies(server_reads, to_client),
            )
        };
        select! {
            biased;
            () = handle.stop.cancelled() => true,
            () = deliver_replies(client_writes, replies, &shared) => false,
            () = deliver_commands(server_writes, commands, &shared) => false,
            _ = reading => false,
        }
    };
    if stopped {
        // The other side sees a reset and not an orderly end.
        let _ = client.set_zero_linger();
        let _ = server.set_zero_linger();
    }
}

/// Handles a client while the server is down. In a black hole, the client must not notice.
async fn refuse(client: TcpStream, shared: &Shared, handle: &Handle) {
    if shared.faults().lane(Lane::ToClient).black_hole {
        handle.lost_bytes.store(true, Ordering::Relaxed);
        handle.stop.cancelled().await;
    }
    let _ = client.set_zero_linger();
}

/// The entry of a lane: applies the faults, and puts the rest into the queue.
struct Entry<'a> {
    lane: Lane,
    shared: &'a Shared,
    handle: &'a Handle,
    queue: UnboundedSender<Parcel>,
    /// When the last parcel arrives; later ones must not overtake it.
    latest: Option<Instant>,
}

/// A piece on its way through a lane.
struct Parcel {
    arrival: Arrival,
    /// How often the network had healed when this was sent.
    healed: u64,
    content: Content,
}

enum Content {
    Bytes(Vec<u8>),
    /// The sender has closed its side.
    End,
    /// A fault cuts the connection here.
    Cut,
    /// A fault ends this direction here.
    HalfEnd,
}

impl Lane {
    fn open<'a>(
        self,
        shared: &'a Shared,
        handle: &'a Handle,
    ) -> (Entry<'a>, UnboundedReceiver<Parcel>) {
        let (queue, exit) = unbounded_channel();
        let entry = Entry { lane: self, shared, handle, queue, latest: None };
        (entry, exit)
    }
}

impl Entry<'_> {
    /// Sends bytes, or what a fault leaves of them. Never returns once the connection is cut.
    async fn send(&mut self, mut bytes: Vec<u8>) {
        let passage = self.shared.faults().lane(self.lane).pass(bytes.len());
        match passage {
            Passage::Swallowed => self.handle.lost_bytes.store(true, Ordering::Relaxed),
            Passage::Whole => {
                self.put(Content::Bytes(bytes));
                if std::mem::take(&mut self.shared.faults().lane(self.lane).half_close) {
                    self.put(Content::HalfEnd);
                    self.handle.lost_bytes.store(true, Ordering::Relaxed);
                }
            }
            Passage::Cut(length) => {
                bytes.truncate(length);
                self.put(Content::Bytes(bytes));
                self.cut().await;
            }
        }
    }

    /// Cuts the connection after what was sent.
    async fn cut(&mut self) {
        self.put(Content::Cut);
        pending().await
    }

    /// The sender has closed its side; in a black hole, the receiver is not told.
    async fn end(&mut self) {
        if self.shared.faults().lane(self.lane).black_hole {
            self.handle.lost_bytes.store(true, Ordering::Relaxed);
        } else {
            self.put(Content::End);
        }
        pending().await
    }

    fn put(&mut self, content: Content) {
        let mut arrival = self.shared.faults().lane(self.lane).arrival(Instant::now());
        if let Arrival::At(instant) = &mut arrival {
            *instant = self.latest.map_or(*instant, |latest| latest.max(*instant));
            self.latest = Some(*instant);
        }
        let parcel = Parcel { arrival, healed: *self.shared.healed.borrow(), content };
        // The exit lives as long as the entry; if not, the connection is at its end anyway.
        let _ = self.queue.send(parcel);
    }
}

async fn read_commands(mut client: impl AsyncRead + Unpin, mut lane: Entry<'_>) {
    let mut piece = vec![0; PIECE];
    loop {
        let length = client.read(&mut piece).await.unwrap_or(0);
        if length == 0 {
            return lane.end().await;
        }
        lane.shared.count_to_server(length);
        lane.send(piece[..length].to_vec()).await;
    }
}

/// Reads whole replies, so that each can be counted, dropped, or kept back.
async fn read_replies(mut server: impl AsyncRead + Unpin, mut lane: Entry<'_>) {
    let mut scanner = ReplyScanner::default();
    let mut buffer: Vec<u8> = Vec::new();
    let mut piece = vec![0; PIECE];
    let mut foreign = false;
    loop {
        let length = server.read(&mut piece).await.unwrap_or(0);
        if length == 0 {
            if !buffer.is_empty() {
                lane.send(std::mem::take(&mut buffer)).await;
            }
            return lane.end().await;
        }
        lane.shared.count_to_client(length);
        buffer.extend_from_slice(&piece[..length]);
        while !foreign {
            match scanner.next(&buffer) {
                Scan::Incomplete => break,
                Scan::Foreign => foreign = true,
                Scan::Push(length) => {
                    let rest = buffer.split_off(length);
                    let push = std::mem::replace(&mut buffer, rest);
                    if !(is_message(&push) && lane.shared.drops_message()) {
                        lane.send(push).await;
                    }
                }
                Scan::Reply(length) => {
                    let rest = buffer.split_off(length);
                    let reply = std::mem::replace(&mut buffer, rest);
                    if is_message(&reply) && lane.shared.drops_message() {
                        continue;
                    }
                    foreign = begins_replication(&reply);
                    match lane.shared.meet_reply() {
                        ReplyFate::Pass => lane.send(reply).await,
                        ReplyFate::Drop => {}
                        ReplyFate::CutInstead => lane.cut().await,
                    }
                }
            }
        }
        if foreign && !buffer.is_empty() {
            lane.send(std::mem::take(&mut buffer)).await;
        }
    }
}

/// Returns when the connection has to end: at a cut. After the client's own end, replies still get
/// through.
async fn deliver_commands(
    mut server: impl AsyncWrite + Unpin,
    queue: UnboundedReceiver<Parcel>,
    shared: &Shared,
) {
    if deliver(&mut server, queue, shared).await == Ending::Sender {
        // The server answers the end with its own, which ends the connection.
        let _ = server.shutdown().await;
        pending().await
    }
}

/// Returns when the connection has to end: at a cut, or when the server has closed it.
async fn deliver_replies(
    mut client: impl AsyncWrite + Unpin,
    queue: UnboundedReceiver<Parcel>,
    shared: &Shared,
) {
    deliver(&mut client, queue, shared).await;
}

/// Why nothing more is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Sender,
    Cut,
}

/// Writes what arrives, when it arrives.
async fn deliver(
    receiver: &mut (impl AsyncWrite + Unpin),
    mut queue: UnboundedReceiver<Parcel>,
    shared: &Shared,
) -> Ending {
    let mut reachable = true;
    while let Some(parcel) = queue.recv().await {
        wait_for_arrival(&parcel, shared).await;
        match parcel.content {
            // A failed write is ignored: the receiver's end is noticed where its bytes are read.
            Content::Bytes(bytes) => {
                reachable = reachable && receiver.write_all(&bytes).await.is_ok();
            }
            Content::HalfEnd => {
                let _ = receiver.shutdown().await;
                reachable = false;
            }
            Content::End => return Ending::Sender,
            Content::Cut => return Ending::Cut,
        }
    }
    pending().await
}

async fn wait_for_arrival(parcel: &Parcel, shared: &Shared) {
    let mut healed = shared.healed.subscribe();
    let heals = healed.wait_for(|healed| *healed > parcel.healed);
    match parcel.arrival {
        Arrival::Healed => {
            let _ = heals.await;
        }
        Arrival::At(instant) if instant > Instant::now() => select! {
            _ = heals => {}
            () = sleep_until(instant) => {}
        },
        Arrival::At(_) => {}
    }
}
