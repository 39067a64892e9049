//! Metric families under a cap on series.

use std::collections::HashSet;
use std::sync::MutexGuard;

use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

/// Families gathered for one scrape.
pub(super) struct Families<'s> {
    families: Vec<MetricFamily>,
    max_series: usize,
    /// Series shown in this scrape or an earlier one.
    shown: MutexGuard<'s, HashSet<String>>,
}

/// A series and its value.
pub(super) struct Row {
    labels: Vec<(&'static str, String)>,
    value: f64,
}

impl Row {
    pub(super) fn new(labels: &[(&'static str, &str)], value: f64) -> Self {
        Self { labels: labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(), value }
    }
}

impl<'s> Families<'s> {
    pub(super) fn new(max_series: usize, shown: MutexGuard<'s, HashSet<String>>) -> Self {
        Self { families: Vec::new(), max_series, shown }
    }

    pub(super) fn counter(&mut self, name: &str, help: &str, rows: impl Iterator<Item = Row>) {
        self.add(name, help, MetricType::COUNTER, rows, |metric, value| {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        });
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str, rows: impl Iterator<Item = Row>) {
        self.add(name, help, MetricType::GAUGE, rows, |metric, value| {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        });
    }

    /// Adds rows as far as the cap allows; the rest are summed up in one whose labels all say `overflow`. A series once
    /// shown keeps its place, or sums would go down.
    fn add(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        rows: impl Iterator<Item = Row>,
        set: impl Fn(&mut Metric, f64),
    ) {
        let mut metrics = Vec::new();
        let mut overflow: Option<Row> = None;
        for row in rows {
            let key = format!("{name}{:?}", row.labels);
            if row.labels.is_empty() || self.shown.contains(&key) || self.shown.len() < self.max_series {
                self.shown.insert(key);
                metrics.push(metric(&row, &set));
            } else {
                let labels = row.labels.iter().map(|(label, _)| (*label, "overflow".to_owned())).collect();
                overflow.get_or_insert(Row { labels, value: 0.0 }).value += row.value;
            }
        }
        metrics.extend(overflow.map(|row| metric(&row, &set)));
        self.push(name, help, kind, metrics);
    }

    /// A histogram per port: counts by bucket, the last beyond all bounds, and the sum.
    pub(super) fn histogram<'p>(
        &mut self,
        name: &str,
        help: &str,
        bounds: &[f64],
        ports: impl Iterator<Item = (&'p str, Vec<u64>, f64)>,
    ) {
        let metrics = ports.map(|(port, counts, sum)| {
            let mut cumulative = 0;
            let buckets = bounds.iter().zip(&counts).map(|(bound, count)| {
                cumulative += count;
                let mut bucket = Bucket::default();
                bucket.set_upper_bound(*bound);
                bucket.set_cumulative_count(cumulative);
                bucket
            });
            let mut histogram = Histogram::default();
            histogram.set_bucket(buckets.collect());
            histogram.set_sample_count(counts.iter().sum());
            histogram.set_sample_sum(sum);
            let mut metric = Metric::from_label(vec![label("port", port)]);
            metric.set_histogram(histogram);
            metric
        });
        let metrics = metrics.collect();
        self.push(name, help, MetricType::HISTOGRAM, metrics);
    }

    fn push(&mut self, name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) {
        // The encoder refuses a family without series: there is nothing to say yet.
        if metrics.is_empty() {
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(metrics);
        self.families.push(family);
    }

    pub(super) fn into_proto(self) -> Vec<MetricFamily> {
        self.families
    }
}

fn metric(row: &Row, set: &impl Fn(&mut Metric, f64)) -> Metric {
    let mut metric = Metric::from_label(row.labels.iter().map(|(name, value)| label(name, value)).collect());
    set(&mut metric, row.value);
    metric
}

fn label(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}
