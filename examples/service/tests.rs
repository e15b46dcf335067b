//! Nearly all tests need no server and take no time. Each test takes the place of the bank and the
//! index, so it knows when a body has begun, and when it was stopped.

use std::{
    future::{Future, pending},
    io,
    time::Duration,
};

use axum::{
    body::{Body, to_bytes},
    http::header::{CONTENT_TYPE, RETRY_AFTER},
};
use lock::{Status, store::MemoryStore, test_util::FaultyStore};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, timeout},
};
use tower::ServiceExt;

use super::*;

const PAY: &str = "/invoices/7/pay";
const CHANGED: &str = "/documents/7/changed";

/// The service, and the jobs that it gives to the bank and the index.
struct Bench {
    app: App,
    jobs: mpsc::Receiver<Job>,
}

impl Bench {
    async fn on(store: impl lock::store::Store) -> Self {
        let locks = Locks::builder().store(store).build().await.unwrap();
        let (others, jobs) = mpsc::channel(64);
        Self { app: App::new(locks, others), jobs }
    }

    fn post(&self, path: &str) -> impl Future<Output = Response> + use<> {
        let request = Request::post(path).body(Body::empty()).unwrap();
        let answer = router(self.app.clone()).oneshot(request);
        async move { soon(answer).await.unwrap() }
    }

    async fn job(&mut self) -> Job {
        soon(self.jobs.recv()).await.expect("the service has the sender")
    }

    /// Sends a request whose one job is done at once, and returns the status of the answer.
    async fn served(&mut self, path: &str) -> StatusCode {
        let answer = tokio::spawn(self.post(path));
        self.job().await.done.send(()).unwrap();
        answer.await.unwrap().status()
    }
}

/// Panics if the future takes longer than anything here does.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(2 * GRACE, future).await.expect("it happens")
}

/// Another instance of the service, as far as locks are concerned.
async fn another(store: &MemoryStore) -> Locks {
    Locks::builder().store(store.clone()).build().await.unwrap()
}

fn header(response: &Response, name: axum::http::HeaderName) -> Option<&str> {
    response.headers().get(name).map(|value| value.to_str().unwrap())
}

async fn text(response: Response) -> String {
    let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    String::from_utf8(bytes.into()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_invoice_is_paid() {
    let mut bench = Bench::on(MemoryStore::new()).await;
    let answer = tokio::spawn(bench.post(PAY));
    let job = bench.job().await;
    assert_eq!(job.what, "pay invoice 7");
    job.done.send(()).unwrap();
    let response = answer.await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(text(response).await, "invoice 7 is paid\n");
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_services_own_is_answered_beside_those_of_locks() {
    let mut bench = Bench::on(MemoryStore::new()).await;
    let answer = tokio::spawn(bench.post(PAY));
    drop(bench.job().await);
    assert_eq!(answer.await.unwrap().status(), StatusCode::BAD_GATEWAY);
}

#[tokio::test(start_paused = true)]
async fn an_invoice_that_another_instance_pays_is_busy() {
    let store = MemoryStore::new();
    let mut bench = Bench::on(store.clone()).await;
    let guard = another(&store).await.lock("invoice:7").acquire().await.unwrap();
    let began = Instant::now();
    let response = bench.post(PAY).await;
    assert!(began.elapsed() >= Duration::from_secs(2), "it waits before it gives up");
    assert_eq!(response.status(), StatusCode::LOCKED);
    assert_eq!(header(&response, RETRY_AFTER), Some("2"));
    assert_eq!(header(&response, CONTENT_TYPE), Some("application/problem+json"));
    let error = response.extensions().get::<Arc<lock::Error>>().expect("what the log says");
    assert!(error.to_string().contains("2s"), "{error}");

    let mut problem: Value = serde_json::from_str(&text(response).await).unwrap();
    let detail = problem.as_object_mut().unwrap().remove("detail").expect("what to do");
    assert!(detail.as_str().unwrap().contains("again"), "{detail}");
    let rest = json!({ "title": "Locked", "status": 423, "kind": "busy", "id": "invoice:7" });
    assert_eq!(problem, rest);
    assert!(bench.jobs.try_recv().is_err(), "nothing was done");

    guard.release().await.unwrap();
    assert_eq!(bench.served(PAY).await, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_payment_stops_when_its_lock_is_lost() {
    let store = FaultyStore::new(MemoryStore::new());
    let mut bench = Bench::on(store.clone()).await;
    let answer = tokio::spawn(bench.post(PAY));
    let mut job = bench.job().await;
    assert!(store.steal(&bench.app.locks.lock("invoice:7").key()).await);
    let response = answer.await.unwrap();
    soon(job.done.closed()).await;
    assert_eq!(response.status(), StatusCode::CONFLICT);
    assert_eq!(header(&response, RETRY_AFTER), None);
    let problem: Value = serde_json::from_str(&text(response).await).unwrap();
    assert_eq!(problem["kind"], "lost");
}

#[tokio::test(start_paused = true)]
async fn without_a_store_nothing_is_done_until_it_is_back() {
    let store = FaultyStore::new(MemoryStore::new());
    let mut bench = Bench::on(store.clone()).await;
    store.go_down();
    for path in [PAY, CHANGED] {
        let response = bench.post(path).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert_eq!(header(&response, RETRY_AFTER), Some("1"), "{path}");
        let problem: Value = serde_json::from_str(&text(response).await).unwrap();
        assert_eq!(problem["kind"], "unavailable", "{path}");
    }
    assert!(bench.jobs.try_recv().is_err(), "nothing was done");

    store.come_back();
    assert_eq!(bench.served(PAY).await, StatusCode::OK);
    assert_eq!(bench.served(CHANGED).await, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_changes_is_one_run() {
    let mut bench = Bench::on(MemoryStore::new()).await;
    let mut answers = JoinSet::new();
    for _ in 0..5 {
        answers.spawn(bench.post(CHANGED));
        sleep(Duration::from_millis(100)).await;
    }
    let job = bench.job().await;
    assert_eq!(job.what, "index document 7");
    job.done.send(()).unwrap();
    let mut statuses: Vec<_> =
        soon(answers.join_all()).await.iter().map(Response::status).collect();
    statuses.sort_unstable();
    let accepted = [StatusCode::ACCEPTED; 4];
    assert_eq!(statuses, [&[StatusCode::OK][..], &accepted].concat());
    assert!(bench.jobs.try_recv().is_err(), "once");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_hangs_up_frees_its_lock_at_once() {
    let store = MemoryStore::new();
    let mut bench = Bench::on(store.clone()).await;
    let mut request = Box::pin(bench.post(PAY));
    let mut job = select! {
        job = bench.job() => job,
        response = &mut request => panic!("answered before its job: {response:?}"),
    };
    let (other, now) = (another(&store).await, Instant::now());
    assert!(other.lock("invoice:7").try_acquire().await.unwrap().is_none());
    drop(request);
    assert!(other.lock("invoice:7").try_acquire().await.unwrap().is_some());
    soon(job.done.closed()).await;
    assert_eq!(now.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_client_hangs_up_runs_all_the_same() {
    let mut bench = Bench::on(MemoryStore::new()).await;
    let impatient = timeout(Duration::from_millis(300), bench.post(CHANGED));
    assert!(impatient.await.is_err(), "it hangs up before the burst is over");
    let job = bench.job().await;
    assert_eq!(job.what, "index document 7");
    job.done.send(()).unwrap();
}

/// Connections without a network, which obey the paused clock.
struct Wires(mpsc::Receiver<DuplexStream>);

impl Listener for Wires {
    type Io = DuplexStream;
    type Addr = ();

    async fn accept(&mut self) -> (DuplexStream, ()) {
        match self.0.recv().await {
            Some(wire) => (wire, ()),
            None => pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A service that runs until it is told to stop, and where to connect to it.
struct Served {
    stop: CancellationToken,
    ended: tokio::task::JoinHandle<io::Result<()>>,
    wires: mpsc::Sender<DuplexStream>,
}

impl Served {
    fn start(app: App) -> Self {
        let (wires, listener) = mpsc::channel(8);
        let stop = CancellationToken::new();
        let ended = tokio::spawn(serve(Wires(listener), app, stop.clone()));
        Self { stop, ended, wires }
    }

    async fn send(&self, path: &str) -> DuplexStream {
        let (mut here, there) = duplex(4096);
        self.wires.send(there).await.unwrap();
        here.write_all(request(path).as_bytes()).await.unwrap();
        here
    }
}

fn request(path: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
}

#[tokio::test(start_paused = true)]
async fn a_stop_leaves_no_lock_and_loses_no_call() {
    let store = MemoryStore::new();
    let mut bench = Bench::on(store.clone()).await;
    let served = Served::start(bench.app.clone());

    // A request in flight, and a call whose client has hung up.
    let mut paying = served.send(PAY).await;
    let payment = bench.job().await;
    let changing = served.send(CHANGED).await;
    sleep(Duration::from_millis(100)).await;
    drop(changing);
    sleep(Duration::from_millis(100)).await;

    served.stop.cancel();
    sleep(Duration::from_millis(100)).await;
    assert!(!served.ended.is_finished(), "a request is in flight");
    payment.done.send(()).unwrap();
    let mut answer = String::new();
    soon(paying.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    // The server has ended by now; the call has yet to run.
    let call = bench.job().await;
    assert_eq!(call.what, "index document 7");
    sleep(Duration::from_secs(5)).await;
    assert!(!served.ended.is_finished(), "a call runs");
    call.done.send(()).expect("the run was not stopped");
    soon(served.ended).await.unwrap().unwrap();

    let other = another(&store).await;
    assert!(matches!(other.lock("invoice:7").status().await.unwrap(), Status::Free));
    let (debounce, began) = (other.debounce("reindex:7"), Instant::now());
    assert_eq!(debounce.call(async || "ran").await.unwrap(), Some("ran"));
    assert!(began.elapsed() < Duration::from_secs(2), "no run is left behind");
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_ever() {
    let store = MemoryStore::new();
    let mut bench = Bench::on(store.clone()).await;
    let served = Served::start(bench.app.clone());
    let _paying = served.send(PAY).await;
    let mut hanging = bench.job().await;

    let began = Instant::now();
    served.stop.cancel();
    soon(served.ended).await.unwrap().unwrap();
    assert!((GRACE..GRACE + Duration::from_secs(3)).contains(&began.elapsed()));
    let other = another(&store).await;
    assert!(matches!(other.lock("invoice:7").status().await.unwrap(), Status::Free));
    soon(hanging.done.closed()).await;
}

// The only test in real time: what happens to a handler when its client hangs up depends on the
// server, and on the system below it.
#[tokio::test]
async fn a_client_that_hangs_up_over_tcp_frees_its_lock() {
    let store = MemoryStore::new();
    let mut bench = Bench::on(store.clone()).await;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let ended = tokio::spawn(serve(listener, bench.app.clone(), stop.clone()));

    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(request(PAY).as_bytes()).await.unwrap();
    let mut job = bench.job().await;
    let other = another(&store).await;
    assert!(other.lock("invoice:7").try_acquire().await.unwrap().is_none());

    drop(client);
    let waiting = other.lock("invoice:7").wait(Duration::from_secs(30));
    assert!(waiting.acquire().await.is_ok(), "the next one in line has it");
    soon(job.done.closed()).await;
    stop.cancel();
    soon(ended).await.unwrap().unwrap();
}
