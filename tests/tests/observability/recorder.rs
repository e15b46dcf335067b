//! The process's recorder, which sums up the measurements.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, OnceLock},
};

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};

/// The measurements under one name with one set of labels.
#[derive(Default)]
struct Series(Mutex<Sums>);

#[derive(Clone, Copy, Default)]
struct Sums {
    value: f64,
    times: u64,
}

impl Series {
    fn change(&self, change: impl FnOnce(f64) -> f64) {
        let mut sums = self.0.lock().unwrap();
        sums.value = change(sums.value);
        sums.times += 1;
    }
}

impl CounterFn for Series {
    fn increment(&self, value: u64) {
        self.change(|before| before + value as f64);
    }

    fn absolute(&self, value: u64) {
        self.change(|_| value as f64);
    }
}

impl GaugeFn for Series {
    fn increment(&self, value: f64) {
        self.change(|before| before + value);
    }

    fn decrement(&self, value: f64) {
        self.change(|before| before - value);
    }

    fn set(&self, value: f64) {
        self.change(|_| value);
    }
}

impl HistogramFn for Series {
    fn record(&self, value: f64) {
        self.change(|before| before + value);
    }
}

#[derive(Default)]
struct Recorded {
    series: Mutex<BTreeMap<SeriesOf, Arc<Series>>>,
    described: Mutex<BTreeMap<String, (&'static str, Option<Unit>)>>,
}

type Labels = BTreeSet<(String, String)>;

/// The name, the kind and the labels.
type SeriesOf = (String, &'static str, Labels);

fn recorded() -> &'static Recorded {
    static RECORDED: OnceLock<Recorded> = OnceLock::new();
    RECORDED.get_or_init(|| {
        metrics::set_global_recorder(TheRecorder).expect("the first");
        Recorded::default()
    })
}

/// Records from now on.
pub(crate) fn record() {
    recorded();
}

/// The sum and the number of the measurements under this name, over all series with these labels.
pub(crate) fn measured(name: &str, labels: &[(&str, &str)]) -> (f64, u64) {
    let series = recorded().series.lock().unwrap();
    let has = |of: &Labels| {
        labels.iter().all(|(key, value)| of.contains(&((*key).to_owned(), (*value).to_owned())))
    };
    let found = series.iter().filter(|((of, _, its), _)| of == name && has(its));
    found.fold((0.0, 0), |(value, times), (_, series)| {
        let sums = *series.0.lock().unwrap();
        (value + sums.value, times + sums.times)
    })
}

/// The name, the kind and the label names of all measurements.
pub(crate) fn all() -> BTreeMap<String, (&'static str, BTreeSet<String>)> {
    let mut all = BTreeMap::<String, (&'static str, BTreeSet<String>)>::new();
    for (name, kind, labels) in recorded().series.lock().unwrap().keys() {
        let (_, names) = all.entry(name.clone()).or_insert((*kind, BTreeSet::new()));
        names.extend(labels.iter().map(|(label, _)| label.clone()));
    }
    all
}

/// Every value of a label.
pub(crate) fn label_values() -> BTreeSet<String> {
    let series = recorded().series.lock().unwrap();
    series.keys().flat_map(|(_, _, labels)| labels).map(|(_, value)| value.clone()).collect()
}

/// The kind and the unit of each described measurement.
pub(crate) fn described() -> BTreeMap<String, (&'static str, Option<Unit>)> {
    recorded().described.lock().unwrap().clone()
}

struct TheRecorder;

fn series(kind: &'static str, key: &Key) -> Arc<Series> {
    let labels = key.labels().map(|label| (label.key().to_owned(), label.value().to_owned()));
    let key = (key.name().to_owned(), kind, labels.collect());
    Arc::clone(recorded().series.lock().unwrap().entry(key).or_default())
}

fn describe(kind: &'static str, name: &KeyName, unit: Option<Unit>) {
    recorded().described.lock().unwrap().insert(name.as_str().to_owned(), (kind, unit));
}

impl Recorder for TheRecorder {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
        describe("counter", &name, unit);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
        describe("gauge", &name, unit);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
        describe("histogram", &name, unit);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(series("counter", key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(series("gauge", key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(series("histogram", key))
    }
}
