//! A network that a test can break.

mod connection;
mod faults;
mod listener;
mod replies;

use std::{
    fmt,
    ops::RangeInclusive,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU16, AtomicU64, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::{
    runtime::{self, Handle},
    sync::{mpsc::UnboundedSender, watch},
    time::timeout,
};

pub use self::faults::Direction;
use self::{
    faults::{Delay, Faults, ReplyFate},
    listener::{Control, Listener},
};

const PATIENCE: Duration = Duration::from_secs(10);

/// A TCP proxy between clients and one server on the loopback interface, with faults that can be
/// switched on and off at run time.
///
/// It runs on a thread and a runtime of its own, with a clock that is never paused: a test that
/// blocks its runtime does not stop the network.
///
/// A switched fault applies at once to bytes that the proxy reads afterwards. Faults add up; a
/// reply meets [`cut_instead_of_reply`](Self::cut_instead_of_reply) and
/// [`drop_reply`](Self::drop_reply) first, then the black hole, then the cut, then the delay.
///
/// A reply passes when it is complete. A push message is not a reply: it passes like one, but is
/// not counted. Data that is not RESP, such as TLS, passes as it comes and is not counted either;
/// nor is the data that a primary sends to its replica.
///
/// Dropping the proxy closes every connection and joins the thread; bytes on their way are lost.
#[must_use = "the proxy stops when the value is dropped"]
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    runtime: Handle,
    /// Taken in the destructor: the thread ends when it is gone.
    controls: Option<UnboundedSender<Control>>,
    /// Taken in the destructor.
    thread: Option<JoinHandle<()>>,
}

/// What the proxy's thread and its owner share.
#[derive(Debug)]
struct Shared {
    /// The port of the server for new connections.
    upstream_port: AtomicU16,
    faults: Mutex<Faults>,
    /// How often the network has healed.
    healed: watch::Sender<u64>,
    accepted: watch::Sender<u64>,
    replies: watch::Sender<u64>,
    to_server: AtomicU64,
    to_client: AtomicU64,
}

impl Proxy {
    /// Starts a proxy without faults for the server on loopback port `upstream_port`, which need
    /// not be up yet: until it is, clients are accepted and reset at once.
    pub fn start(upstream_port: u16) -> Self {
        let shared = Arc::new(Shared {
            upstream_port: AtomicU16::new(upstream_port),
            faults: Mutex::default(),
            healed: watch::Sender::new(0),
            accepted: watch::Sender::new(0),
            replies: watch::Sender::new(0),
            to_server: AtomicU64::new(0),
            to_client: AtomicU64::new(0),
        });
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime can be built");
        let handle = runtime.handle().clone();
        let (listener, port, controls) = {
            let _inside = runtime.enter();
            Listener::bind(Arc::clone(&shared))
        };
        let thread = thread::Builder::new()
            .name(format!("proxy {port}"))
            .spawn(move || runtime.block_on(listener.run()))
            .expect("a thread can be started");
        Self { port, shared, runtime: handle, controls: Some(controls), thread: Some(thread) }
    }

    /// The address for clients, `redis://127.0.0.1:PORT/`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// The port for clients.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Swallows every byte; connections stay open, and new ones are accepted. The end of a
    /// connection is also swallowed.
    ///
    /// [`heal`](Self::heal) resets the connections that lost something, because they are out of
    /// step: a client would take the next reply for the lost one.
    pub fn black_hole(&self, direction: Direction) {
        self.shared.faults().change(direction, |lane| lane.black_hole = true);
    }

    /// Keeps every byte back until [`heal`](Self::heal), which delivers them all in order, like a
    /// network that was only slow. New connections are accepted.
    pub fn hold(&self, direction: Direction) {
        self.shared.faults().change(direction, |lane| lane.hold = true);
    }

    /// Delivers everything `delay` later. Bytes never overtake each other or queue behind others:
    /// the delay is latency and not bandwidth.
    pub fn delay(&self, direction: Direction, delay: Duration) {
        self.delay_between(direction, delay..=delay, 0);
    }

    /// Delivers everything later by a time drawn from `range`, from a sequence that depends only on
    /// `seed`. Bytes never overtake each other.
    ///
    /// # Panics
    ///
    /// When the range is empty.
    pub fn delay_between(&self, direction: Direction, range: RangeInclusive<Duration>, seed: u64) {
        let delay = Delay::new(range, seed);
        self.shared.faults().change(direction, |lane| lane.delay = Some(delay.clone()));
    }

    /// Closes one connection after `bytes` more bytes, counted over all connections, were
    /// delivered: the one that carries the last of them. Once per call, in each direction.
    pub fn cut_after(&self, direction: Direction, bytes: usize) {
        self.shared.faults().change(direction, |lane| lane.cut_after = Some(bytes));
    }

    /// Ends one direction of one connection after the next bytes: their receiver reads the end of
    /// the stream, and later bytes are swallowed. The other direction stays open.
    pub fn half_close(&self, direction: Direction) {
        self.shared.faults().change(direction, |lane| lane.half_close = true);
    }

    /// Swallows one reply, the `nth` from now on (1 is the next), counted over all connections.
    ///
    /// All later replies pass, so a client that pairs commands and replies by their order takes
    /// each for the one before it. For a reply that a real network loses, use
    /// [`cut_instead_of_reply`](Self::cut_instead_of_reply).
    pub fn drop_reply(&self, nth: u64) {
        self.shared.faults().drop_reply(nth);
    }

    /// Closes a connection in place of one reply, the `nth` from now on (1 is the next), counted
    /// over all connections: the command was executed, but its client does not know.
    pub fn cut_instead_of_reply(&self, nth: u64) {
        self.shared.faults().cut_reply(nth);
    }

    /// Swallows messages of subscriptions from now on: every `every`-th one, so all of them for 1.
    /// Replies pass, and so do the confirmations of subscriptions.
    pub fn drop_messages(&self, every: u64) {
        self.shared.faults().drop_messages(every);
    }

    /// Resets every connection, with a TCP reset, and returns when that is done. New ones are
    /// accepted.
    pub fn reset_connections(&self) {
        self.command(Control::Reset);
    }

    /// Leads to another server from now on, like an address after a failover; connections are
    /// reset.
    pub fn fail_over_to(&self, upstream_port: u16) {
        self.lead_to(upstream_port);
        self.reset_connections();
    }

    /// Leads new connections to another server from now on, like a name whose address has changed.
    /// Open connections stay.
    pub fn lead_to(&self, upstream_port: u16) {
        self.shared.upstream_port.store(upstream_port, Ordering::Relaxed);
    }

    /// Refuses new connections from now on, like a host where nothing listens. Open connections
    /// stay.
    pub fn refuse_connections(&self) {
        self.command(Control::Refuse);
    }

    /// Switches every fault off, including those that have not struck yet, and returns when new
    /// connections are accepted again.
    ///
    /// Bytes that were delayed or held arrive now. Connections whose bytes were swallowed by a
    /// [`black_hole`](Self::black_hole) are reset.
    pub fn heal(&self) {
        self.command(Control::Heal);
    }

    /// How many connections were accepted since the start.
    pub fn connections_accepted(&self) -> u64 {
        *self.shared.accepted.borrow()
    }

    /// How many replies the server has sent since the start, whatever happened to them. Messages of
    /// a subscription count, unless they are RESP3 push messages.
    pub fn replies_seen(&self) -> u64 {
        *self.shared.replies.borrow()
    }

    /// How many bytes clients have sent since the start, whatever happened to them.
    pub fn bytes_to_server(&self) -> u64 {
        self.shared.to_server.load(Ordering::Relaxed)
    }

    /// How many bytes the server has sent since the start, whatever happened to them.
    pub fn bytes_to_client(&self) -> u64 {
        self.shared.to_client.load(Ordering::Relaxed)
    }

    /// Waits until `count` replies were seen since the start of the proxy. For replies from now
    /// on: `proxy.wait_for_replies(proxy.replies_seen() + 1)`, with the sum taken before the
    /// command is sent.
    ///
    /// # Panics
    ///
    /// When that takes longer than 10 seconds of real time, with the number seen.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only looks.
    pub async fn wait_for_replies(&self, count: u64) {
        self.wait_for(&self.shared.replies, count, "replies").await;
    }

    /// Waits until `count` connections were accepted since the start of the proxy.
    ///
    /// # Panics
    ///
    /// When that takes longer than 10 seconds of real time, with the number accepted.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only looks.
    pub async fn wait_for_connections(&self, count: u64) {
        self.wait_for(&self.shared.accepted, count, "connections").await;
    }

    async fn wait_for(&self, counter: &watch::Sender<u64>, count: u64, what: &str) {
        let mut counted = counter.subscribe();
        // On the proxy's runtime, because the clock of the test's own may be paused.
        let waiting = self.runtime.spawn(async move {
            let reached = timeout(PATIENCE, counted.wait_for(|counted| *counted >= count));
            reached.await.is_ok()
        });
        let reached = waiting.await.expect("the proxy's runtime outlives the proxy");
        let seen = *counter.borrow();
        assert!(reached, "{seen} of {count} {what} within {PATIENCE:?}");
    }

    /// Sends the proxy's thread a command, and blocks until it is done: that takes no longer than a
    /// few system calls.
    fn command(&self, control: impl FnOnce(mpsc::Sender<()>) -> Control) {
        let (done, wait) = mpsc::channel();
        let controls = self.controls.as_ref();
        controls
            .expect("only the destructor takes the controls")
            .send(control(done))
            .expect("the proxy's thread runs until the destructor");
        wait.recv_timeout(PATIENCE).expect("the proxy should have done it");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.controls.take());
        if let Some(thread) = self.thread.take() {
            // A panic on that thread was printed there; a second one here would abort.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("port", &self.port)
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides about the next reply, and counts it.
    fn meet_reply(&self) -> ReplyFate {
        let fate = self.faults().meet_reply();
        self.replies.send_modify(|replies| *replies += 1);
        fate
    }

    /// Decides about the next message of a subscription.
    fn drops_message(&self) -> bool {
        self.faults().drops_message()
    }

    fn count_to_server(&self, length: usize) {
        self.to_server.fetch_add(length as u64, Ordering::Relaxed);
    }

    fn count_to_client(&self, length: usize) {
        self.to_client.fetch_add(length as u64, Ordering::Relaxed);
    }
}
