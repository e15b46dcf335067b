//! The process's subscriber, which records events.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{Mutex, OnceLock, PoisonError, mpsc},
    time::Duration,
};

use lock_tests::eventually;
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id},
};
use tracing_subscriber::{
    Layer, Registry,
    layer::{Context, SubscriberExt},
    registry::LookupSpan,
};

/// One event.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) level: Level,
    pub(crate) fields: BTreeMap<String, String>,
    /// The names and `id`s of the spans around it, the outermost first.
    pub(crate) spans: Vec<(String, String)>,
}

impl Said {
    pub(crate) fn message(&self) -> &str {
        self.field("message")
    }

    pub(crate) fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }
}

static SAID: Mutex<Vec<Said>> = Mutex::new(Vec::new());

/// Gates that block the next event with this id and these words, like a slow subscriber.
static GATES: Mutex<Vec<Gate>> = Mutex::new(Vec::new());

struct Gate {
    id: &'static str,
    words: &'static str,
    opens: mpsc::Receiver<()>,
}

/// Listens from now on.
pub(crate) fn listen() {
    static BEGUN: OnceLock<()> = OnceLock::new();
    BEGUN.get_or_init(|| {
        let subscriber = Registry::default().with(Listener);
        tracing::subscriber::set_global_default(subscriber).expect("the first");
    });
}

/// Blocks the next event of this id with these words until the returned value is dropped.
pub(crate) fn block_at(id: &'static str, words: &'static str) -> mpsc::Sender<()> {
    let (gate, opens) = mpsc::channel();
    GATES.lock().unwrap().push(Gate { id, words, opens });
    gate
}

/// The events of this id so far.
pub(crate) fn told_of(id: &str) -> Vec<Said> {
    told(|said| said.field("id") == id)
}

pub(crate) fn told(is_it: impl Fn(&Said) -> bool) -> Vec<Said> {
    let said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    said.iter().filter(|said| is_it(said)).cloned().collect()
}

/// Waits for the first event of this id with these words.
pub(crate) async fn told_soon(id: &str, words: &str) -> Said {
    told_where(words, |said| said.field("id") == id).await
}

pub(crate) async fn told_where(words: &str, is_it: impl Fn(&Said) -> bool) -> Said {
    eventually(Duration::from_secs(20), async || {
        let found = told(|said| is_it(said) && said.message().contains(words));
        found.into_iter().next().ok_or_else(|| format!("nothing with {words:?}"))
    })
    .await
}

struct Listener;

/// The `id` of a span.
struct SpanId(String);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Listener {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        metadata.target() == "lock" || metadata.target().starts_with("observability")
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let id_of = fields.0.remove("id").unwrap_or_default();
        context.span(id).unwrap().extensions_mut().insert(SpanId(id_of));
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let spans = context.event_scope(event).into_iter().flat_map(|scope| scope.from_root());
        let spans = spans.map(|span| {
            let id = span.extensions().get::<SpanId>().map(|id| id.0.clone());
            (span.name().to_owned(), id.unwrap_or_default())
        });
        let said =
            Said { level: *event.metadata().level(), fields: fields.0, spans: spans.collect() };
        let is_it =
            |gate: &mut Gate| gate.id == said.field("id") && said.message().contains(gate.words);
        let gate = GATES.lock().unwrap().extract_if(.., is_it).next();
        SAID.lock().unwrap_or_else(PoisonError::into_inner).push(said);
        if let Some(gate) = gate {
            let _ = gate.opens.recv();
        }
    }
}

#[derive(Default)]
struct Fields(BTreeMap<String, String>);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
}
