//! What the library reports about its servers: the events of its connections, which an application
//! would send to its log.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    filter::filter_fn,
    layer::{Context, Layer, SubscriberExt as _},
    util::SubscriberInitExt as _,
};

/// The last report about each server.
#[derive(Clone, Default)]
pub(crate) struct Servers(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// By the address that the library knows.
    reports: BTreeMap<String, Report>,
    /// The servers behind the proxies. A proxy that has ended stays here: the client that used it
    /// may still report about it.
    proxies: BTreeMap<String, String>,
    /// The primary that the Sentinels named last.
    primary: Option<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) text: String,
    pub(crate) is_good: bool,
    pub(crate) at: Instant,
}

/// A server as one instance sees it.
pub(crate) struct Server {
    pub(crate) address: String,
    pub(crate) is_primary: bool,
    pub(crate) report: Report,
}

impl Servers {
    /// Starts to collect the library's events, in the whole process.
    pub(crate) fn listen() -> Self {
        let servers = Self::default();
        let about_a_server =
            filter_fn(|event| event.target() == "lock" && event.fields().field("server").is_some());
        let layer = Reports(servers.clone()).with_filter(about_a_server);
        tracing_subscriber::registry().with(layer).init();
        servers
    }

    /// Notes that the library knows this server as `proxy`.
    pub(crate) fn behind(&self, proxy: String, server: String) {
        self.state().proxies.insert(proxy, server);
    }

    /// The servers, as seen by the instance whose connection goes through `proxy`.
    pub(crate) fn seen_through(&self, proxy: Option<&str>) -> Vec<Server> {
        let state = self.state();
        let mut seen = BTreeMap::new();
        for (address, report) in &state.reports {
            match state.proxies.get(address) {
                // The instance's own connection takes precedence: its page is about that.
                Some(server) if proxy == Some(address) => {
                    seen.insert(server, report);
                }
                Some(_another_instance) => {}
                None => {
                    seen.entry(address).or_insert(report);
                }
            }
        }
        seen.into_iter()
            .map(|(address, report)| Server {
                address: address.clone(),
                is_primary: state.primary.as_ref() == Some(address),
                report: report.clone(),
            })
            .collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server {
    pub(crate) fn reported_for(&self) -> Duration {
        self.report.at.elapsed()
    }
}

struct Reports(Servers);

impl<S: Subscriber> Layer<S> for Reports {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut text = fields.message;
        if let Some(cause) = fields.cause {
            let _ = write!(text, ": {cause}");
        }
        let is_good = *event.metadata().level() > Level::WARN;
        let mut state = self.0.state();
        if fields.is_primary {
            state.primary = Some(fields.server.clone());
        }
        state.reports.insert(fields.server, Report { text, is_good, at: Instant::now() });
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    server: String,
    cause: Option<String>,
    is_primary: bool,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            "server" => self.server = format!("{value:?}"),
            "primary" => self.is_primary = true,
            _ => {}
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "cause" => self.cause = Some(value.to_owned()),
            _ => self.record_debug(field, &format_args!("{value}")),
        }
    }
}
