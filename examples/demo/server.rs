//! HTTP: the page, its commands, and the stream of views that it draws.

use std::{
    convert::Infallible,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, Query, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header},
    middleware::{Next, from_fn},
    response::{
        IntoResponse, Response,
        sse::{Event, Sse},
    },
    routing::{get, post},
};
use futures_util::{Stream, stream};
use serde::Deserialize;
use tokio::{
    net::TcpListener,
    select, signal,
    sync::watch,
    time::{interval, sleep},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    board::Board,
    command::Command,
    process::Process,
    view::{Asked, View},
    viewer::Viewer,
};

/// The shortest time between two views of a page ..
const DRAWN: Duration = Duration::from_millis(80);
/// .. and how much longer than that, if nothing changes.
const REDRAWN: Duration = Duration::from_millis(500);
/// How often the store is asked who holds the lock on a page.
const ASKED: Duration = Duration::from_millis(400);

/// No command is longer.
const LARGEST_BODY: usize = 8 * 1024;
/// How long connections may take to end when the demo stops.
const ENDS: Duration = Duration::from_secs(2);

/// The page needs nothing from other origins, and may not load anything from there.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

type App = State<Arc<Process>>;

/// Serves until Ctrl-C or SIGTERM, and leaves no lock held.
pub(crate) async fn serve(listener: TcpListener, process: Arc<Process>) -> std::io::Result<()> {
    let router = Router::new()
        .route("/", get(|| file("text/html; charset=utf-8", include_str!("page/index.html"))))
        .route("/page.css", get(|| file("text/css; charset=utf-8", include_str!("page/page.css"))))
        .route(
            "/page.js",
            get(|| file("text/javascript; charset=utf-8", include_str!("page/page.js"))),
        )
        .route("/icon.svg", get(|| file("image/svg+xml", include_str!("page/icon.svg"))))
        .route("/instances", post(open))
        .route("/instances/{id}/commands", post(command))
        .route("/instances/{id}/events", get(events))
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .layer(from_fn(own_pages_only))
        .with_state(Arc::clone(&process));
    let ending = process.ending.clone();
    let server = axum::serve(listener, router).with_graceful_shutdown(async move {
        ended_by_signal().await;
        // A stream of views does not end on its own.
        ending.cancel();
    });
    let overdue = async {
        process.ending.cancelled().await;
        sleep(ENDS).await;
    };
    select! {
        outcome = async { server.await } => outcome?,
        // Without a bound, a browser that does not read, or has sent half of a request, would keep
        // the server from ending.
        () = overdue => {}
    }
    process.end().await;
    Ok(())
}

async fn ended_by_signal() {
    let mut terminate = signal::unix::signal(signal::unix::SignalKind::terminate())
        .expect("a signal can be waited for");
    select! {
        _ = signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

/// Refuses requests from pages of other sites, even if the site's name resolves to this machine.
async fn own_pages_only(request: Request, next: Next) -> Response {
    if is_own(request.headers()) {
        next.run(request).await
    } else {
        let why = "this is for pages of the demo only: open it as http://127.0.0.1:PORT/";
        (StatusCode::FORBIDDEN, why).into_response()
    }
}

fn is_own(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let Some(host) = text(header::HOST) else { return false };
    // The owner of a name can make it resolve to this machine; nobody can do so with an address.
    let local = format!("http://{host}/").parse::<Uri>().is_ok_and(|uri| {
        uri.host().is_some_and(|name| {
            name == "localhost" || name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
        })
    });
    let from_here = match text(header::ORIGIN) {
        Some(origin) => origin.split_once("://").is_some_and(|(_, sender)| sender == host),
        None => !headers.contains_key(header::ORIGIN),
    };
    local && from_here
}

async fn file(kind: &'static str, text: &'static str) -> impl IntoResponse {
    let headers: [(HeaderName, HeaderValue); 4] = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        // The next version of the demo may be at the same address.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (headers, text)
}

async fn open(State(process): App) -> Response {
    match process.open().await {
        Ok(instance) => Json(serde_json::json!({ "id": instance.id })).into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why).into_response(),
    }
}

/// The outcome of a command is in the next view, not in the response.
async fn command(
    State(process): App,
    Path(id): Path<String>,
    Json(command): Json<Command>,
) -> StatusCode {
    match process.find(&id) {
        Some(instance) => {
            instance.command(command).await;
            StatusCode::ACCEPTED
        }
        None => StatusCode::GONE,
    }
}

#[derive(Deserialize)]
struct Watched {
    lock: String,
}

async fn events(
    State(process): App,
    Path(id): Path<String>,
    Query(watched): Query<Watched>,
) -> Response {
    match process.find(&id).and_then(|instance| instance.view()) {
        Some(viewer) => Sse::new(views(process, viewer, watched.lock)).into_response(),
        // `EventSource` does not report the status with which a stream was refused, so the page
        // learns of it from an event in a stream.
        None => Sse::new(stream::once(async {
            Ok::<_, Infallible>(Event::default().event("gone").data("gone"))
        }))
        .into_response(),
    }
}

/// A page that shows an instance, as its stream sees it.
struct Page {
    process: Arc<Process>,
    viewer: Viewer,
    lock: String,
    board: watch::Receiver<Board>,
    asked: watch::Receiver<Option<Asked>>,
    _asking: AbortOnDropHandle<()>,
    first: bool,
}

fn views(
    process: Arc<Process>,
    viewer: Viewer,
    lock: String,
) -> impl Stream<Item = Result<Event, Infallible>> {
    let (asked, seen) = watch::channel(None);
    let page = Page {
        viewer,
        board: process.journal.watch(),
        asked: seen,
        _asking: AbortOnDropHandle::new(tokio::spawn(ask(
            Arc::clone(&process),
            lock.clone(),
            asked,
        ))),
        lock,
        process,
        first: true,
    };
    stream::unfold(page, |mut page| async move {
        page.is_due().await?;
        let asked = page.asked.borrow_and_update().clone();
        let instance = page.viewer.instance();
        let view = View::of(&page.process, instance, &page.lock, asked.as_ref());
        let event = Event::default().json_data(view).expect("BUG: a view is not JSON");
        Some((Ok(event), page))
    })
}

impl Page {
    /// Waits until the next view is due. Returns `None` if the process ends.
    async fn is_due(&mut self) -> Option<()> {
        if std::mem::take(&mut self.first) {
            self.board.mark_unchanged();
            return Some(());
        }
        let changed = async {
            sleep(DRAWN).await;
            select! {
                _ = self.board.changed() => {}
                _ = self.asked.changed() => {}
                () = sleep(REDRAWN) => {}
            }
        };
        select! {
            () = changed => Some(()),
            () = self.process.ending.cancelled() => None,
        }
    }
}

/// Polls the status of the lock that a page shows, because the store does not report changes.
async fn ask(process: Arc<Process>, lock: String, asked: watch::Sender<Option<Asked>>) {
    let lock = process.operator.lock(lock);
    let mut again = interval(ASKED);
    loop {
        again.tick().await;
        let began = Instant::now();
        let status = lock.status().await.map_err(Arc::new);
        asked.send_replace(Some((status, began)));
    }
}
