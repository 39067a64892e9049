//! The thread that writes lines. Workers hand it batches over a bounded channel and never wait: what does not fit is dropped
//! and counted.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::{io, thread};

use crate::settings::Output;
use crate::sink::Sink;

/// Batches under way at once: some 4 MiB of lines.
const BATCHES: usize = 32;
/// Empty ones kept.
const SPARE: usize = 2;
/// How long the end of the process waits for the last lines.
const SHUTDOWN: Duration = Duration::from_secs(2);
/// How often a failing output is complained about.
const COMPLAINT: Duration = Duration::from_secs(60);

/// Whole lines, and how many.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) bytes: Vec<u8>,
    pub(crate) lines: u64,
}

/// A worker's way to the writer.
#[derive(Debug, Clone)]
pub(crate) struct Lines {
    full: SyncSender<Message>,
    empty: Arc<Mutex<Vec<Batch>>>,
}

#[derive(Debug)]
enum Message {
    Lines(Batch),
    Output(Output),
    End,
}

impl Lines {
    /// Hands a batch over. `Ok` and `Err` both tell how many lines it had.
    pub(crate) fn send(&self, batch: Batch) -> Result<u64, u64> {
        let lines = batch.lines;
        match self.full.try_send(Message::Lines(batch)) {
            Ok(()) => Ok(lines),
            Err(TrySendError::Full(message) | TrySendError::Disconnected(message)) => {
                if let Message::Lines(batch) = message {
                    give_back(&self.empty, batch);
                }
                Err(lines)
            }
        }
    }

    /// An empty batch, with memory where there is some to spare.
    pub(crate) fn spare(&self) -> Batch {
        // The writer holds the lock for a push only.
        self.empty.lock().ok().and_then(|mut spare| spare.pop()).unwrap_or_default()
    }
}

fn give_back(empty: &Mutex<Vec<Batch>>, mut batch: Batch) {
    batch.bytes.clear();
    batch.lines = 0;
    if let Ok(mut spare) = empty.lock()
        && spare.len() < SPARE
    {
        spare.push(batch);
    }
}

/// The writer thread's handle.
#[derive(Debug)]
pub(crate) struct Writer {
    lines: Lines,
    ended: Mutex<Receiver<()>>,
    /// Lines lost to an output that failed.
    pub(crate) failed: Arc<AtomicU64>,
}

impl Writer {
    /// Opens the output and starts the thread.
    ///
    /// # Errors
    /// What opening the file, or starting a thread, gives.
    pub(crate) fn start(output: &Output) -> io::Result<Self> {
        let sink = Sink::open(output)?;
        let (full, batches) = sync_channel(BATCHES);
        let (end, ended) = sync_channel(1);
        let lines = Lines { full, empty: Arc::default() };
        let failed = Arc::new(AtomicU64::new(0));
        let thread = Thread { sink, failed: failed.clone(), empty: lines.empty.clone(), complained: None };
        thread::Builder::new().name("access-log".into()).spawn(move || {
            thread.run(&batches);
            let _ = end.send(());
        })?;
        Ok(Self { lines, ended: Mutex::new(ended), failed })
    }

    pub(crate) fn lines(&self) -> Lines {
        self.lines.clone()
    }

    /// Sends further lines elsewhere. Never waits: a writer that is stuck takes the news when it can, or not at all.
    pub(crate) fn set_output(&self, output: Output) -> bool {
        self.lines.full.try_send(Message::Output(output)).is_ok()
    }

    /// Writes what was handed over and ends, unless the output is stuck: the process does not wait for it.
    pub(crate) fn shutdown(&self) {
        let begun = Instant::now();
        while begun.elapsed() < SHUTDOWN {
            match self.lines.full.try_send(Message::End) {
                Err(TrySendError::Full(_)) => thread::sleep(Duration::from_millis(10)),
                Err(TrySendError::Disconnected(_)) => return,
                Ok(()) => break,
            }
        }
        if let Ok(ended) = self.ended.lock()
            && ended.recv_timeout(SHUTDOWN.saturating_sub(begun.elapsed())) == Err(RecvTimeoutError::Timeout)
        {
            tracing::warn!("the access log's output is stuck; its last lines are lost");
        }
    }
}

struct Thread {
    sink: Sink,
    failed: Arc<AtomicU64>,
    empty: Arc<Mutex<Vec<Batch>>>,
    complained: Option<Instant>,
}

impl Thread {
    fn run(mut self, batches: &Receiver<Message>) {
        while let Ok(message) = batches.recv() {
            match message {
                Message::Lines(batch) => {
                    if let Err(e) = self.sink.write(&batch.bytes, Instant::now()) {
                        self.failed.fetch_add(batch.lines, Relaxed);
                        self.complain("lines are dropped", &e);
                    }
                    give_back(&self.empty, batch);
                }
                Message::Output(output) => match Sink::open(&output) {
                    Ok(sink) => self.sink = sink,
                    Err(e) => self.complain("the old output is kept", &e),
                },
                Message::End => return,
            }
        }
    }

    fn complain(&mut self, consequence: &str, e: &io::Error) {
        if self.complained.is_none_or(|last| last.elapsed() > COMPLAINT) {
            self.complained = Some(Instant::now());
            tracing::warn!("cannot write the access log, {consequence}: {e}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(text: &str) -> Batch {
        Batch { bytes: text.as_bytes().to_vec(), lines: text.lines().count() as u64 }
    }

    #[test]
    fn an_output_that_takes_nothing_costs_lines_not_time() {
        let (_reader, pipe) = io::pipe().unwrap();
        let (full, batches) = sync_channel(BATCHES);
        let lines = Lines { full, empty: Arc::default() };
        let thread =
            Thread { sink: Sink::to(pipe), failed: Arc::default(), empty: lines.empty.clone(), complained: None };
        thread::spawn(move || thread.run(&batches));
        let line = format!("{}\n", "x".repeat(32 * 1024));
        let results: Vec<_> = (0..4 * BATCHES).map(|_| lines.send(batch(&line))).collect();
        let dropped = results.iter().filter(|result| result.is_err()).count();
        assert!(dropped >= 2 * BATCHES, "{dropped} dropped: nobody reads the pipe");
    }

    #[test]
    fn a_full_disk_costs_lines_which_are_counted() {
        let writer = Writer::start(&Output::File { path: "/dev/full".into(), rotate: None }).unwrap();
        assert_eq!(writer.lines().send(batch("a\nb\n")), Ok(2));
        writer.shutdown();
        assert_eq!(writer.failed.load(Relaxed), 2);
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_an_error_at_start() {
        assert!(Writer::start(&Output::File { path: "/nowhere/at/all".into(), rotate: None }).is_err());
    }

    #[test]
    fn the_output_changes_where_it_stands_in_the_queue() {
        let dir = std::env::temp_dir().join(format!("outrigger-writer-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = |name: &str| Output::File { path: dir.join(name), rotate: None };
        let writer = Writer::start(&file("a")).unwrap();
        writer.lines().send(batch("1\n")).unwrap();
        assert!(writer.set_output(file("b")));
        writer.lines().send(batch("2\n")).unwrap();
        assert!(writer.set_output(Output::File { path: "/nowhere/at/all".into(), rotate: None }));
        writer.lines().send(batch("3\n")).unwrap();
        writer.shutdown();
        assert_eq!(std::fs::read_to_string(dir.join("a")).unwrap(), "1\n");
        assert_eq!(std::fs::read_to_string(dir.join("b")).unwrap(), "2\n3\n");
        std::fs::remove_dir_all(dir).unwrap();
    }
}
