//! A web service on axum: locks and debounced calls in its handlers, errors as responses, and a stop
//! that leaves no lock behind and loses no call.
//!
//!     cargo run --example service
//!     curl -i -X POST http://127.0.0.1:3000/invoices/7/pay
//!     curl -i -X POST http://127.0.0.1:3000/documents/7/changed
//!
//! Pay one invoice from two terminals, or change one document many times. Two services with the
//! same `LOCK_URL`, on two `PORT`s, behave like one. `tests.rs` tests a busy lock, a lost lock, a
//! store that is down, clients that hang up, and the stop.

#[cfg(test)]
mod tests;

use std::{
    env,
    error::Error as _,
    fmt,
    net::{Ipv4Addr, SocketAddr},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    extract::{Path, Request, State},
    http::StatusCode,
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::post,
    serve::Listener,
};
use lock::{Locks, debounced, locked};
use tokio::{
    net::TcpListener,
    select, signal,
    sync::{mpsc, oneshot},
    time::sleep,
};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

/// How long requests and calls may go on after the signal to stop: less than the time until the
/// process is killed (30 s after the signal in Kubernetes).
const GRACE: Duration = Duration::from_secs(20);

#[derive(Clone)]
struct App {
    locks: Locks,
    /// The systems that do the work, a bank and a search index; the tests take their place.
    others: mpsc::Sender<Job>,
    /// Counts the calls that go on without their clients.
    detached: TaskTracker,
}

struct Job {
    what: String,
    done: oneshot::Sender<()>,
}

/// The error that another system did not do its job.
struct NotDone;

impl App {
    fn new(locks: Locks, others: mpsc::Sender<Job>) -> Self {
        Self { locks, others, detached: TaskTracker::new() }
    }

    async fn have_done(&self, what: String) -> Result<(), NotDone> {
        let (done, is_done) = oneshot::channel();
        self.others.send(Job { what, done }).await.map_err(|_| NotDone)?;
        is_done.await.map_err(|_| NotDone)
    }
}

fn router(app: App) -> Router {
    Router::new()
        .route("/invoices/{id}/pay", post(pay))
        .route("/documents/{id}/changed", post(changed))
        .layer(from_fn(log_lock_errors))
        .with_state(app)
}

// One payment of an invoice at a time, across all instances of the service. If the client hangs up,
// axum drops the handler: the body stops where it is, and the lock is released.
#[locked(id = "invoice:{id}", locks = app.locks, wait = "2s")]
async fn pay(State(app): State<App>, Path(id): Path<u64>) -> Result<String, AppError> {
    app.have_done(format!("pay invoice {id}")).await?;
    Ok(format!("invoice {id} is paid\n"))
}

// Answers when the burst is over, because the outcome is not known earlier: 200 if this request's
// call ran, 202 if another request's call runs in its place, 503 if none will. A client that does
// not want to wait hangs up; its call stays. (`Debounce::spawn` is for handlers that answer at
// once.)
async fn changed(State(app): State<App>, Path(id): Path<u64>) -> Result<StatusCode, lock::Error> {
    let counted = app.detached.token();
    let ran = reindex(app, id, counted).await?;
    Ok(if ran.is_some() { StatusCode::OK } else { StatusCode::ACCEPTED })
}

// The client may have hung up, so a failure is logged here.
#[debounced(id = "reindex:{id}", locks = app.locks, wait = "1s", max_wait = "10s", detached)]
async fn reindex(app: App, id: u64, _counted: TaskTrackerToken) -> Result<(), lock::Error> {
    if let Err(NotDone) = app.have_done(format!("index document {id}")).await {
        eprintln!("document {id} is not indexed: the index has not answered");
    }
    Ok(())
}

/// The service's own errors, and those of locks, which are responses already.
enum AppError {
    Lock(lock::Error),
    Bank,
}

impl From<lock::Error> for AppError {
    fn from(error: lock::Error) -> Self {
        Self::Lock(error)
    }
}

impl From<NotDone> for AppError {
    fn from(NotDone: NotDone) -> Self {
        Self::Bank
    }
}

impl IntoResponse for AppError {
    fn into_response(self) -> Response {
        match self {
            Self::Lock(error) => error.into_response(),
            Self::Bank => (StatusCode::BAD_GATEWAY, "the bank has not answered\n").into_response(),
        }
    }
}

// The response tells the client what it can do; the log says what happened, and on which server.
async fn log_lock_errors(request: Request, next: Next) -> Response {
    let what = format!("{} {}", request.method(), request.uri().path());
    let response = next.run(request).await;
    if let Some(error) = response.extensions().get::<Arc<lock::Error>>() {
        let cause = error.source().map(|cause| format!(" ({cause})")).unwrap_or_default();
        eprintln!("{what}: {error}{cause}");
    }
    response
}

/// Serves until it is told to stop, then lets requests and calls end, and leaves no lock behind.
async fn serve<L: Listener<Addr: fmt::Debug>>(
    listener: L,
    app: App,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let (locks, detached) = (app.locks.clone(), app.detached.clone());
    let server =
        axum::serve(listener, router(app)).with_graceful_shutdown(stop.clone().cancelled_owned());
    let ends = async {
        server.await?;
        // No request makes a call any more. The calls that are left have lost their clients.
        detached.close();
        detached.wait().await;
        Ok(())
    };
    let overdue = async {
        stop.cancelled().await;
        sleep(GRACE).await;
    };
    let outcome = select! {
        outcome = ends => outcome,
        () = overdue => {
            eprintln!("stopping what has not ended within {GRACE:?}");
            Ok(())
        }
    };
    // Waits for the releases that have begun, and ends what still holds a lock. An earlier
    // `shutdown` would have ended the calls that wait for the end of their burst.
    locks.shutdown().await;
    outcome
}

async fn run() -> Result<(), Box<dyn std::error::Error>> {
    let locks = match env::var("LOCK_URL") {
        Ok(url) => Locks::connect(&url).await?,
        Err(_) => Locks::in_memory(),
    };
    let port = env::var("PORT").unwrap_or_else(|_| "3000".to_owned());
    let port = port.parse().map_err(|_| format!("PORT={port} is not the number of a port"))?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| format!("cannot listen on {address}: {error}; choose another PORT"))?;
    println!("listening on http://{}", listener.local_addr()?);

    let (others, jobs) = mpsc::channel(64);
    tokio::spawn(do_jobs(jobs));
    let stop = CancellationToken::new();
    tokio::spawn({
        let stop = stop.clone();
        async move {
            stop_signal().await;
            println!("stopping");
            stop.cancel();
        }
    });
    serve(listener, App::new(locks, others), stop).await?;
    Ok(())
}

/// The bank and the index: each job takes a second.
async fn do_jobs(mut jobs: mpsc::Receiver<Job>) {
    while let Some(Job { what, mut done }) = jobs.recv().await {
        tokio::spawn(async move {
            select! {
                () = sleep(Duration::from_secs(1)) => {
                    println!("done: {what}");
                    let _ = done.send(());
                }
                () = done.closed() => println!("stopped: {what}"),
            }
        });
    }
}

async fn stop_signal() {
    let terminated = async {
        #[cfg(unix)]
        {
            let kind = signal::unix::SignalKind::terminate();
            signal::unix::signal(kind).expect("SIGTERM can be waited for").recv().await;
        }
        #[cfg(not(unix))]
        std::future::pending::<()>().await;
    };
    select! {
        () = terminated => (),
        _ = signal::ctrl_c() => (),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
