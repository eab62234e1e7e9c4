//! Fault specifications: `NAME[@TRIGGER][=VALUE]`.
//!
//! Pure: text in, checked fault out. Triggers are `@start` (while the engine starts, before it
//! binds its port) and `@request=N` (when the N-th generation request arrives). Requests count
//! from 1 and every POST to a generation endpoint counts, refused ones too: a readiness probe
//! and a warm-up use up numbers.

use std::num::ParseIntError;
use std::time::Duration;

/// What goes wrong. Those of the first group hold for the whole life of the process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    /// Loading takes this much longer.
    SlowStart(Duration),
    /// The process lives and never binds its port.
    NeverReady,
    IgnoreSigterm,
    /// `/health` answers 200, every generation request 500.
    HealthyNoGenerate,
    /// So many lines a second on stdout.
    LogFlood(u32),
    /// A child in a session of its own, which survives everything that its parent does.
    SetsidChild,
    /// The same with the listening socket in its hands, and deaf to SIGTERM: the port stays taken.
    HoldPort,
    /// No more than so many requests run, whatever was asked for. No word in the log; `/server_info`
    /// tells the truth.
    Clamp(u32),
    /// The request to make answers as long as asked is not heard.
    ShortAnswers,
    /// The bound on an answer's length is not heard: it is longer.
    LongAnswers,
    /// No stream tells how many tokens it has.
    NoUsage,

    /// The process ends.
    Die(Death),

    /// No stream gets another token. Everything else works on.
    Hang,
    /// The server lives and its worker does not: from now on every stream of status 200 is an error
    /// event, every other answer 500, and `/health` answers 200.
    WorkerLost,
    Http500,
    /// The response's head comes this much later; tokens queue up behind it.
    SlowHeader(Duration),
    InStream(StreamFault),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Death {
    /// An out-of-memory traceback, then exit code 1.
    Oom,
    Exit(u8),
    /// By SIGSEGV.
    Crash,
    /// The leader exits with code 1; its child lives on and holds its stdout.
    LeaderExit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamFault {
    /// The stream ends mid-way without a word.
    Cut,
    /// An event that is not JSON, mid-way.
    Garbage,
    /// An error event mid-way in a stream of status 200, which ends there.
    ErrorEvent,
    /// The same before the first token.
    ErrorAtOnce,
    /// The stream ends properly, but without `data: [DONE]`.
    NoDone,
    /// Mid-way nothing comes any more, on this stream alone. The connection stays open.
    Stall,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trigger {
    Start,
    /// From 1.
    Request(u64),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FaultSpec {
    pub(crate) fault: Fault,
    pub(crate) at: Trigger,
    /// As it was written.
    pub(crate) text: String,
}

/// Each message completes "fault SPEC: …".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FaultError {
    #[error("no fault is named {name:?}; there are {}", names())]
    Unknown { name: String },
    #[error("{name} needs {needs}")]
    NeedsTrigger { name: &'static str, needs: &'static str },
    #[error("{name} cannot come at {given:?}, only at {takes}")]
    WrongTrigger { name: &'static str, given: String, takes: &'static str },
    #[error("{given:?} is no trigger; there are @start and @request=N")]
    UnknownTrigger { given: String },
    #[error("the request number {given:?} is not a whole number from 1")]
    BadNumber { given: String },
    #[error("{name} needs a value: {takes}")]
    NeedsValue { name: &'static str, takes: &'static str },
    #[error("{name} takes no value, but got {given:?}")]
    NoValue { name: &'static str, given: String },
    #[error("{name} takes {takes}, not {given:?}")]
    BadValue { name: &'static str, takes: &'static str, given: String },
}

/// Which triggers a fault takes. The first is meant when none is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Start,
    Request,
    /// No default: one of the two must be said.
    Either,
}

impl When {
    const fn text(self) -> &'static str {
        match self {
            Self::Start => "@start",
            Self::Request => "@request=N",
            Self::Either => "@start or @request=N",
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Value {
    None(Fault),
    Seconds(fn(Duration) -> Fault),
    /// An exit code, with the one that is meant when none is given.
    Code(u8),
    /// Lines a second, likewise.
    PerSecond(u32),
    Requests(fn(u32) -> Fault),
}

const RULES: [(&str, When, Value); 24] = [
    ("slow-start", When::Start, Value::Seconds(Fault::SlowStart)),
    ("never-ready", When::Start, Value::None(Fault::NeverReady)),
    ("ignore-sigterm", When::Start, Value::None(Fault::IgnoreSigterm)),
    ("healthy-no-generate", When::Start, Value::None(Fault::HealthyNoGenerate)),
    ("log-flood", When::Start, Value::PerSecond(10_000)),
    ("setsid-child", When::Start, Value::None(Fault::SetsidChild)),
    ("hold-port", When::Start, Value::None(Fault::HoldPort)),
    ("clamp", When::Start, Value::Requests(Fault::Clamp)),
    ("short-answers", When::Start, Value::None(Fault::ShortAnswers)),
    ("long-answers", When::Start, Value::None(Fault::LongAnswers)),
    ("no-usage", When::Start, Value::None(Fault::NoUsage)),
    ("oom", When::Either, Value::None(Fault::Die(Death::Oom))),
    ("exit", When::Either, Value::Code(1)),
    ("crash", When::Either, Value::None(Fault::Die(Death::Crash))),
    ("leader-exit", When::Either, Value::None(Fault::Die(Death::LeaderExit))),
    ("hang", When::Request, Value::None(Fault::Hang)),
    ("worker-lost", When::Request, Value::None(Fault::WorkerLost)),
    ("cut", When::Request, Value::None(Fault::InStream(StreamFault::Cut))),
    ("garbage", When::Request, Value::None(Fault::InStream(StreamFault::Garbage))),
    ("error-event", When::Request, Value::None(Fault::InStream(StreamFault::ErrorEvent))),
    ("no-done", When::Request, Value::None(Fault::InStream(StreamFault::NoDone))),
    ("stall", When::Request, Value::None(Fault::InStream(StreamFault::Stall))),
    ("http-500", When::Request, Value::None(Fault::Http500)),
    ("slow-header", When::Request, Value::Seconds(Fault::SlowHeader)),
];

fn names() -> String {
    RULES.map(|(name, ..)| name).join(", ")
}

impl std::str::FromStr for FaultSpec {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        let (name, rest) = text.split_at(text.find(['@', '=']).unwrap_or(text.len()));
        let Some(&(name, when, value)) = RULES.iter().find(|(known, ..)| *known == name) else {
            return Err(FaultError::Unknown { name: name.to_owned() });
        };
        let (at, rest) = match rest.strip_prefix('@') {
            Some(rest) => {
                let (at, rest) = trigger(rest)?;
                (Some(at), rest)
            }
            None => (None, rest),
        };
        let at = match (when, at) {
            (When::Start, None) => Trigger::Start,
            (When::Request | When::Either, None) => {
                return Err(FaultError::NeedsTrigger { name, needs: when.text() });
            }
            (When::Start | When::Either, Some(at @ Trigger::Start))
            | (When::Request | When::Either, Some(at @ Trigger::Request(_))) => at,
            (When::Start, Some(Trigger::Request(n))) => {
                let given = format!("@request={n}");
                return Err(FaultError::WrongTrigger { name, given, takes: when.text() });
            }
            (When::Request, Some(Trigger::Start)) => {
                let given = "@start".to_owned();
                return Err(FaultError::WrongTrigger { name, given, takes: when.text() });
            }
        };
        Ok(Self { fault: valued(name, value, rest.strip_prefix('='))?, at, text: text.to_owned() })
    }
}

/// The trigger at the start of `text`, and what follows it: nothing or `=VALUE`.
fn trigger(text: &str) -> Result<(Trigger, &str), FaultError> {
    let end = |text: &str| text.find('=').unwrap_or(text.len());
    let (kind, rest) = text.split_at(end(text));
    match (kind, rest.strip_prefix('=')) {
        ("start", _) => Ok((Trigger::Start, rest)),
        ("request", Some(rest)) => {
            let (given, rest) = rest.split_at(end(rest));
            let number: Result<u64, ParseIntError> = given.parse();
            match number {
                Ok(n) if n > 0 => Ok((Trigger::Request(n), rest)),
                Ok(_) | Err(_) => Err(FaultError::BadNumber { given: given.to_owned() }),
            }
        }
        _ => Err(FaultError::UnknownTrigger { given: format!("@{text}") }),
    }
}

fn valued(name: &'static str, value: Value, given: Option<&str>) -> Result<Fault, FaultError> {
    let bad = |takes| {
        let given = given.unwrap_or_default().to_owned();
        FaultError::BadValue { name, takes, given }
    };
    match (value, given) {
        (Value::None(fault), None) => Ok(fault),
        (Value::None(_), Some(given)) => Err(FaultError::NoValue { name, given: given.to_owned() }),
        (Value::Code(code), None) => Ok(Fault::Die(Death::Exit(code))),
        (Value::PerSecond(rate), None) => Ok(Fault::LogFlood(rate)),
        (Value::Seconds(_), None) => Err(FaultError::NeedsValue { name, takes: "seconds" }),
        (Value::Requests(_), None) => Err(FaultError::NeedsValue { name, takes: "requests" }),
        (Value::Requests(make), Some(given)) => match given.parse() {
            Ok(most) if most > 0 => Ok(make(most)),
            Ok(_) | Err(_) => Err(bad("a whole number of requests, from 1")),
        },
        (Value::Code(_), Some(given)) => given
            .parse()
            .map(|code| Fault::Die(Death::Exit(code)))
            .map_err(|_| bad("an exit code of 0 to 255")),
        (Value::PerSecond(_), Some(given)) => match given.parse() {
            Ok(rate) if rate > 0 => Ok(Fault::LogFlood(rate)),
            Ok(_) | Err(_) => Err(bad("a whole number of lines a second, from 1")),
        },
        (Value::Seconds(make), Some(given)) => {
            let seconds = given.parse().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
            seconds.map(make).ok_or_else(|| bad("seconds, such as 5 or 0.5"))
        }
    }
}

/// The faults of one process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults(pub(crate) Vec<FaultSpec>);

impl Faults {
    pub(crate) fn at_start(&self) -> impl Iterator<Item = Fault> {
        self.0.iter().filter(|spec| spec.at == Trigger::Start).map(|spec| spec.fault)
    }

    pub(crate) fn at_request(&self, number: u64) -> impl Iterator<Item = Fault> {
        let comes = move |spec: &&FaultSpec| match (spec.at, spec.fault) {
            (Trigger::Start, _) => false,
            (Trigger::Request(first), Fault::WorkerLost) => first <= number,
            (Trigger::Request(only), _) => only == number,
        };
        self.0.iter().filter(comes).map(|spec| spec.fault)
    }

    pub(crate) fn always(&self, fault: Fault) -> bool {
        self.at_start().any(|ours| ours == fault)
    }

    /// The most requests that run, if that is clamped.
    pub(crate) fn clamp(&self) -> Option<u32> {
        let clamps = self.at_start().filter_map(|fault| match fault {
            Fault::Clamp(most) => Some(most),
            _ => None,
        });
        clamps.min()
    }

    /// Whether the process has a child that outlives it on demand.
    pub(crate) fn has_worker(&self) -> bool {
        self.0.iter().any(|spec| spec.fault == Fault::Die(Death::LeaderExit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, fault: Fault, at: Trigger) {
        let text = text.to_owned();
        assert_eq!(text.parse(), Ok(FaultSpec { fault, at, text: text.clone() }));
    }

    #[track_caller]
    fn refuse(text: &str, message: &str) {
        let error = text.parse::<FaultSpec>().unwrap_err().to_string();
        assert!(error.contains(message), "{text}: {error}");
    }

    #[test]
    fn faults_of_the_whole_life_need_no_trigger() {
        check("slow-start=2.5", Fault::SlowStart(Duration::from_millis(2500)), Trigger::Start);
        check("slow-start@start=3", Fault::SlowStart(Duration::from_secs(3)), Trigger::Start);
        check("never-ready", Fault::NeverReady, Trigger::Start);
        check("ignore-sigterm@start", Fault::IgnoreSigterm, Trigger::Start);
        check("log-flood", Fault::LogFlood(10_000), Trigger::Start);
        check("log-flood=50", Fault::LogFlood(50), Trigger::Start);
        check("clamp=3", Fault::Clamp(3), Trigger::Start);
        check("hold-port", Fault::HoldPort, Trigger::Start);
    }

    #[test]
    fn faults_at_a_request_carry_its_number() {
        check("oom@request=10", Fault::Die(Death::Oom), Trigger::Request(10));
        check("exit@request=1", Fault::Die(Death::Exit(1)), Trigger::Request(1));
        check("exit@request=2=42", Fault::Die(Death::Exit(42)), Trigger::Request(2));
        check("hang@request=7", Fault::Hang, Trigger::Request(7));
        let slow = Fault::SlowHeader(Duration::from_millis(500));
        check("slow-header@request=3=0.5", slow, Trigger::Request(3));
    }

    #[test]
    fn some_faults_may_also_come_while_loading() {
        check("oom@start", Fault::Die(Death::Oom), Trigger::Start);
        check("exit@start=3", Fault::Die(Death::Exit(3)), Trigger::Start);
        refuse("oom", "oom needs @start or @request=N");
    }

    #[test]
    fn mistakes_are_named() {
        refuse("", "no fault is named \"\"; there are slow-start, never-ready");
        refuse("omm@request=1", "no fault is named \"omm\"");
        refuse("hang", "hang needs @request=N");
        refuse("hang@start", "hang cannot come at \"@start\", only at @request=N");
        refuse("never-ready@request=1", "cannot come at \"@request=1\", only at @start");
        refuse("oom@requests=1", "\"@requests=1\" is no trigger");
        refuse("oom@request", "\"@request\" is no trigger");
        refuse("oom@request=0", "\"0\" is not a whole number from 1");
        refuse("oom@request=x", "\"x\" is not");
        refuse("oom@request=1=2", "oom takes no value, but got \"2\"");
        refuse("slow-start", "slow-start needs a value: seconds");
        refuse("slow-start=-1", "takes seconds, such as 5 or 0.5, not \"-1\"");
        refuse("slow-start=inf", "takes seconds");
        refuse("exit@request=1=256", "takes an exit code of 0 to 255, not \"256\"");
        refuse("clamp", "clamp needs a value: requests");
        refuse("clamp=0", "takes a whole number of requests, from 1, not \"0\"");
        refuse("log-flood=0", "takes a whole number of lines a second, from 1");
    }

    #[test]
    fn faults_are_found_by_their_trigger() {
        let specs = ["never-ready", "hang@request=2", "cut@request=2", "oom@request=3"];
        let faults = Faults(specs.iter().map(|text| text.parse().unwrap()).collect());
        assert_eq!(faults.at_request(1).count(), 0);
        assert_eq!(
            faults.at_request(2).collect::<Vec<_>>(),
            [Fault::Hang, Fault::InStream(StreamFault::Cut)]
        );
        assert!(faults.always(Fault::NeverReady));
        assert!(!faults.always(Fault::IgnoreSigterm));
        assert!(!faults.has_worker());
    }
}
