//! A chat trace in memory: its days, who speaks on each, and what is said, in order.
//!
//! One event a line, five columns with tabs between them: day, clock (`HH:MM`), kind (`say`, `join`
//! or `part`), user, text. Plain or gzipped, told apart by the first bytes. Within a day the file's
//! order counts, never the clock: some traces run on a 12-hour clock. Only `say` is kept; a day's
//! members are all who speak on it in the whole file, also beyond a limit, so that the same day is
//! the same group however much of it is played.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Read as _, Seek as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use flate2::bufread::MultiGzDecoder;
use roost_storage::limits::{MAX_BODY_BYTES, MAX_ID_BYTES, MAX_NAME_BYTES};
use sha2::{Digest as _, Sha256};

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// Longest line: a body, the other columns and some air.
const MAX_LINE_BYTES: u64 = (MAX_BODY_BYTES + 4_096) as u64;
/// Hours on a clock face: where a 12-hour clock starts again.
const HALF_DAY_MINUTES: i64 = 12 * 60;

/// A trace.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    /// The speakers' ids.
    pub(crate) users: Vec<String>,
    /// The days, in the order of their first message.
    pub(crate) days: Vec<Day>,
    /// The line of the first message beyond the limit, if there is one.
    pub(crate) cut: Option<u64>,
    /// Names the content: equal files, equal fingerprint.
    pub(crate) fingerprint: String,
    text: String,
}

/// One day: a group, and what is said in it.
#[derive(Debug)]
pub(crate) struct Day {
    /// `YYYY-MM-DD`, the group's name.
    pub(crate) name: String,
    /// Who speaks, as indexes into the trace's users, in the order of their first words.
    pub(crate) members: Vec<u32>,
    /// What is said, in order, up to the limit.
    pub(crate) says: Vec<Say>,
}

/// One message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Say {
    /// Its line in the file, from 1.
    pub(crate) line: u64,
    /// Who says it, as an index into the trace's users.
    pub(crate) user: u32,
    /// Minutes since the day's first message.
    pub(crate) minute: u32,
    start: usize,
    len: u32,
}

impl Trace {
    /// Reads a file, keeping the first `limit` messages.
    ///
    /// # Errors
    /// The file cannot be read, or a line is not in the format; the error names the line.
    pub(crate) fn read(path: &Path, limit: usize) -> anyhow::Result<Self> {
        let named = || format!("{}", path.display());
        let mut file =
            File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let mut magic = [0; 2];
        let gzipped = file.read_exact(&mut magic).is_ok() && magic == GZIP_MAGIC;
        file.rewind().with_context(named)?;
        let file = BufReader::new(file);
        if gzipped {
            Self::parse(BufReader::new(MultiGzDecoder::new(file)), limit).with_context(named)
        } else {
            Self::parse(file, limit).with_context(named)
        }
    }

    /// Parses lines.
    pub(crate) fn parse(mut input: impl BufRead, limit: usize) -> anyhow::Result<Self> {
        let mut parser = Parser { limit, ..Parser::default() };
        let mut hash = Sha256::new();
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let read = input.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line)?;
            if read == 0 {
                break;
            }
            if read as u64 == MAX_LINE_BYTES && line.last() != Some(&b'\n') {
                bail!("line {number} has more than {MAX_LINE_BYTES} bytes");
            }
            hash.update(&line);
            parser.line(number, &line).with_context(|| format!("line {number}"))?;
        }
        let mut trace = parser.trace;
        // Days begin in the order of their first message, so a limit cuts off the last ones, and
        // the others keep their numbers.
        trace.days.retain(|day| !day.says.is_empty());
        trace.fingerprint =
            hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        Ok(trace)
    }

    /// A message's text.
    pub(crate) fn text(&self, say: &Say) -> &str {
        &self.text[say.start..say.start + say.len as usize]
    }

    /// How many messages there are.
    pub(crate) fn messages(&self) -> usize {
        self.days.iter().map(|day| day.says.len()).sum()
    }
}

#[derive(Default)]
struct Parser {
    trace: Trace,
    limit: usize,
    taken: usize,
    users: HashMap<String, u32>,
    days: HashMap<String, usize>,
    /// One for each day.
    progress: Vec<DayProgress>,
}

#[derive(Default)]
struct DayProgress {
    /// Who speaks already.
    speakers: HashSet<u32>,
    /// The clock at the last message, and the minutes since the first.
    last: Option<(i64, u32)>,
}

impl Parser {
    fn line(&mut self, number: u64, line: &[u8]) -> anyhow::Result<()> {
        let line = std::str::from_utf8(line).context("not UTF-8")?;
        let line = line.strip_suffix('\n').unwrap_or(line);
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.is_empty() {
            return Ok(());
        }
        let mut columns = line.splitn(5, '\t');
        let mut column = |name| columns.next().with_context(|| format!("no column `{name}`"));
        let (day, clock, kind, user) =
            (column("day")?, column("clock")?, column("kind")?, column("user")?);
        match kind {
            "say" => {}
            "join" | "part" => return Ok(()),
            other => bail!("kind {other:?} is none of say, join, part"),
        }
        let text = column("text")?;
        let clock = minutes(clock).with_context(|| format!("clock {clock:?} is not HH:MM"))?;
        check_length("day", day, MAX_NAME_BYTES)?;
        check_length("user", user, MAX_ID_BYTES)?;
        check_length("text", text, MAX_BODY_BYTES)?;
        let (day, user) = (self.day(day), self.user(user)?);
        self.say(number, day, clock, user, text);
        Ok(())
    }

    fn say(&mut self, line: u64, day: usize, clock: i64, user: u32, text: &str) {
        let DayProgress { speakers, last } = &mut self.progress[day];
        let into = &mut self.trace.days[day];
        if speakers.insert(user) {
            into.members.push(user);
        }
        let minute = last.map_or(0, |(before, minute)| minute + step(before, clock));
        *last = Some((clock, minute));
        if self.taken == self.limit {
            self.trace.cut.get_or_insert(line);
        } else {
            self.taken += 1;
            let start = self.trace.text.len();
            self.trace.text.push_str(text);
            into.says.push(Say { line, user, minute, start, len: text.len() as u32 });
        }
    }

    fn day(&mut self, name: &str) -> usize {
        if let Some(index) = self.days.get(name) {
            return *index;
        }
        let index = self.trace.days.len();
        self.days.insert(name.to_owned(), index);
        self.trace.days.push(Day { name: name.to_owned(), members: Vec::new(), says: Vec::new() });
        self.progress.push(DayProgress::default());
        index
    }

    fn user(&mut self, id: &str) -> anyhow::Result<u32> {
        if let Some(index) = self.users.get(id) {
            return Ok(*index);
        }
        let index = u32::try_from(self.trace.users.len()).context("too many users")?;
        self.users.insert(id.to_owned(), index);
        self.trace.users.push(id.to_owned());
        Ok(index)
    }
}

fn check_length(name: &str, value: &str, most: usize) -> anyhow::Result<()> {
    if value.is_empty() && name != "text" {
        bail!("column `{name}` is empty");
    }
    if value.len() > most {
        bail!("column `{name}` has more than {most} bytes");
    }
    Ok(())
}

/// Minutes since midnight, or noon on a 12-hour clock.
fn minutes(clock: &str) -> Option<i64> {
    let (hours, minutes) = clock.split_once(':')?;
    let (hours, minutes) = (hours.parse::<u8>().ok()?, minutes.parse::<u8>().ok()?);
    (hours < 24 && minutes < 60).then(|| i64::from(hours) * 60 + i64::from(minutes))
}

/// Minutes between two messages. A clock that goes back has passed noon on a 12-hour clock, or is
/// off by a little, which counts as no time.
fn step(before: i64, clock: i64) -> u32 {
    let passed = if clock >= before {
        clock - before
    } else {
        (clock - before).rem_euclid(HALF_DAY_MINUTES)
    };
    let went_back_a_little = clock < before && passed > HALF_DAY_MINUTES / 2;
    if went_back_a_little { 0 } else { passed as u32 }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const SAMPLE: &str = "2004-11-15\t12:18\tsay\tu1\thi\n\
        2004-11-15\t12:18\tjoin\tu9\t\n\
        2004-11-15\t12:20\tsay\tu2\ta\tb\n\
        2004-11-16\t01:00\tsay\tu1\t\n\
        2004-11-16\t01:00\tpart\tu2\t\n\
        2004-11-15\t12:21\tsay\tu1\tagain\n";

    fn parse(text: &str, limit: usize) -> anyhow::Result<Trace> {
        Trace::parse(text.as_bytes(), limit)
    }

    #[test]
    fn a_day_is_a_group_of_those_who_speak_in_the_order_of_the_file() {
        let trace = parse(SAMPLE, usize::MAX).unwrap();
        assert_eq!(trace.users, ["u1", "u2"]);
        let names: Vec<_> =
            trace.days.iter().map(|day| (day.name.as_str(), day.members.clone())).collect();
        assert_eq!(names, [("2004-11-15", vec![0, 1]), ("2004-11-16", vec![0])]);
        let texts: Vec<_> =
            trace.days[0].says.iter().map(|say| (say.line, trace.text(say))).collect();
        assert_eq!(texts, [(1, "hi"), (3, "a\tb"), (6, "again")]);
        assert_eq!(trace.text(&trace.days[1].says[0]), "");
    }

    #[test]
    fn a_limit_cuts_messages_but_not_members() {
        let trace = parse(SAMPLE, 1).unwrap();
        assert_eq!((trace.messages(), trace.days.len(), trace.cut), (1, 1, Some(3)));
        assert_eq!(trace.days[0].members, [0, 1]);
        assert_eq!(trace.fingerprint, parse(SAMPLE, 9).unwrap().fingerprint);
    }

    #[test]
    fn gzip_is_told_from_plain_text_by_its_first_bytes() {
        let temp = tempfile::tempdir().unwrap();
        let (plain, zipped) = (temp.path().join("a"), temp.path().join("b"));
        std::fs::write(&plain, SAMPLE).unwrap();
        let mut encoder =
            flate2::write::GzEncoder::new(File::create(&zipped).unwrap(), Default::default());
        encoder.write_all(SAMPLE.as_bytes()).unwrap();
        encoder.finish().unwrap();
        let read = |path: &Path| Trace::read(path, usize::MAX).unwrap().fingerprint;
        assert_eq!(read(&plain), read(&zipped));
    }

    #[test]
    fn what_is_not_in_the_format_is_an_error_that_names_the_line() {
        let long = format!("d\t00:00\tsay\tu\t{}\n", "x".repeat(MAX_BODY_BYTES + 1));
        for wrong in [
            "d\t00:00\tsay\tu\n",
            "d\t25:00\tsay\tu\thi\n",
            "d\t00:00\tshout\tu\thi\n",
            "\t00:00\tsay\tu\thi\n",
            "d\n",
            &long,
        ] {
            let error = parse(&format!("d\t00:00\tsay\tu\tok\n{wrong}"), 9).unwrap_err();
            assert!(format!("{error:#}").contains("line 2"), "{error:#}");
        }
        assert!(Trace::parse(&b"d\t00:00\tsay\tu\t\xff\n"[..], 9).is_err());
        let endless = BufReader::new(std::io::repeat(b'x'));
        assert!(format!("{:#}", Trace::parse(endless, 9).unwrap_err()).contains("line 1"));
    }

    #[test]
    fn the_clock_never_goes_back() {
        assert_eq!(step(10, 12), 2);
        assert_eq!(step(12 * 60 + 59, 60), 1);
        assert_eq!(step(100, 98), 0);
    }
}
