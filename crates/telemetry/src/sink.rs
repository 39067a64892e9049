//! Where lines end up: standard output, or a file that rotates by our own doing or another's.

use std::fs::{File, OpenOptions, rename};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::settings::{Output, Rotate};

/// How often a file is looked after that another process may have moved away.
const LOOK: Duration = Duration::from_secs(1);

/// An open output.
pub(crate) struct Sink {
    to: To,
    /// The last write broke off within a line: the next begins with a line end.
    torn: bool,
}

enum To {
    Stream(Box<dyn Write + Send>),
    File(LogFile),
}

struct LogFile {
    path: PathBuf,
    rotate: Option<Rotate>,
    file: File,
    size: u64,
    looked: Option<Instant>,
}

impl Sink {
    /// Opens an output.
    ///
    /// # Errors
    /// What opening the file gives, with its path.
    pub(crate) fn open(output: &Output) -> io::Result<Self> {
        match output {
            Output::Stdout => Ok(Self::to(io::stdout())),
            Output::File { path, rotate } => {
                let (file, size) = open(path)?;
                let file = LogFile { path: path.clone(), rotate: *rotate, file, size, looked: None };
                Ok(Self { to: To::File(file), torn: false })
            }
        }
    }

    pub(crate) fn to(stream: impl Write + Send + 'static) -> Self {
        Self { to: To::Stream(Box::new(stream)), torn: false }
    }

    /// Writes whole lines. After a failure none of their bytes stay in a file, and none of a stream's next lines are joined
    /// to them.
    ///
    /// # Errors
    /// The lines are lost; the next may go through.
    pub(crate) fn write(&mut self, lines: &[u8], now: Instant) -> io::Result<()> {
        let torn = std::mem::take(&mut self.torn);
        match &mut self.to {
            To::Stream(stream) => {
                let result = if torn { stream.write_all(b"\n") } else { Ok(()) };
                let result = result.and_then(|()| stream.write_all(lines)).and_then(|()| stream.flush());
                self.torn = result.is_err();
                result
            }
            To::File(file) => {
                file.look(now)?;
                file.make_room(lines.len() as u64)?;
                file.write(lines)
            }
        }
    }
}

impl LogFile {
    /// Opens the file anew where its path leads elsewhere by now.
    fn look(&mut self, now: Instant) -> io::Result<()> {
        if self.looked.is_some_and(|last| now.duration_since(last) < LOOK) {
            return Ok(());
        }
        self.looked = Some(now);
        let ours = self.file.metadata()?;
        let same =
            std::fs::metadata(&self.path).is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino()));
        if !same {
            (self.file, self.size) = open(&self.path)?;
        } else if ours.len() < self.size {
            // Truncated in place (copytruncate).
            self.size = ours.len();
        }
        Ok(())
    }

    /// Rotates where the lines would make the file larger than it may be.
    fn make_room(&mut self, bytes: u64) -> io::Result<()> {
        let Some(Rotate { size, keep }) = self.rotate.filter(|r| self.size > 0 && self.size + bytes > r.size) else {
            return Ok(());
        };
        if keep == 0 {
            self.file.set_len(0)?;
            self.size = 0;
            return Ok(());
        }
        debug_assert!(size > 0, "a file of no size");
        let old = |n: u32| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{n}"));
            PathBuf::from(name)
        };
        for n in (1..keep).rev() {
            // What is not there yet need not be moved.
            let _ = rename(old(n), old(n + 1));
        }
        rename(&self.path, old(1))?;
        (self.file, self.size) = open(&self.path)?;
        Ok(())
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let result = self.file.write_all(lines);
        match result {
            Ok(()) => self.size += lines.len() as u64,
            // Half a line would be taken for a whole one; on what is no regular file there is nothing to take back.
            Err(_) => drop(self.file.set_len(self.size)),
        }
        result
    }
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("outrigger-sink-{name}-{}", std::process::id()));
            fs::create_dir_all(&dir).unwrap();
            Self(dir)
        }

        fn read(&self, name: &str) -> Option<String> {
            fs::read_to_string(self.0.join(name)).ok()
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn file(dir: &Dir, rotate: Option<Rotate>) -> Sink {
        Sink::open(&Output::File { path: dir.0.join("log"), rotate }).unwrap()
    }

    #[test]
    fn files_rotate_by_size_and_as_many_as_wanted_are_kept() {
        let dir = Dir::new("size");
        let mut sink = file(&dir, Some(Rotate { size: 8, keep: 2 }));
        let now = Instant::now();
        for n in 0..8 {
            sink.write(format!("{n}{n}{n}\n").as_bytes(), now).unwrap();
        }
        assert_eq!(dir.read("log").as_deref(), Some("666\n777\n"));
        assert_eq!(dir.read("log.1").as_deref(), Some("444\n555\n"));
        assert_eq!(dir.read("log.2").as_deref(), Some("222\n333\n"));
        assert_eq!(dir.read("log.3"), None);
    }

    #[test]
    fn a_file_moved_away_by_another_is_opened_anew() {
        let dir = Dir::new("moved");
        let mut sink = file(&dir, None);
        let now = Instant::now();
        sink.write(b"1\n", now).unwrap();
        fs::rename(dir.0.join("log"), dir.0.join("old")).unwrap();
        sink.write(b"2\n", now).unwrap();
        sink.write(b"3\n", now + LOOK).unwrap();
        assert_eq!((dir.read("old").as_deref(), dir.read("log").as_deref()), (Some("1\n2\n"), Some("3\n")));
        fs::remove_file(dir.0.join("log")).unwrap();
        sink.write(b"4\n", now + 2 * LOOK).unwrap();
        assert_eq!(dir.read("log").as_deref(), Some("4\n"));
    }

    #[test]
    fn a_stream_that_broke_off_within_a_line_begins_a_new_one() {
        /// Takes a few bytes, fails once, then takes all.
        struct Flaky(std::sync::Arc<std::sync::Mutex<(Vec<u8>, u32)>>);
        impl Write for Flaky {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let (written, calls) = &mut *self.0.lock().unwrap();
                *calls += 1;
                match calls {
                    1 => written.extend_from_slice(&bytes[..3]),
                    2 => return Err(io::ErrorKind::StorageFull.into()),
                    _ => {
                        written.extend_from_slice(bytes);
                        return Ok(bytes.len());
                    }
                }
                Ok(3)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let written = std::sync::Arc::default();
        let mut sink = Sink::to(Flaky(std::sync::Arc::clone(&written)));
        sink.write(b"first line\n", Instant::now()).unwrap_err();
        sink.write(b"second line\n", Instant::now()).unwrap();
        assert_eq!(written.lock().unwrap().0, b"fir\nsecond line\n");
    }
}
