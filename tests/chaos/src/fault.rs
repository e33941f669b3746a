//! What can go wrong.

use std::str::FromStr;

macro_rules! faults {
    ($($(#[doc = $doc:literal])* $fault:ident $name:literal,)*) => {
        /// A kind of fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Fault {
            $($(#[doc = $doc])* $fault,)*
        }

        impl Fault {
            pub(crate) const ALL: &[Fault] = &[$(Fault::$fault),*];

            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Fault::$fault => $name,)*
                }
            }

            /// The names of all faults, and what they are, a line each.
            pub(crate) fn describe() -> String {
                let mut lines = String::new();
                $(lines += &format!("  {:<12}{}\n", $name, [$($doc.trim()),*].join(" "));)*
                lines
            }
        }
    };
}

faults! {
    /// a process is killed, and another takes its place
    Kill "kill",
    /// a process is stopped for a while (SIGSTOP)
    Pause "pause",
    /// a server is killed, and restarted after a while
    Crash "crash",
    /// a server is killed and restarted at once, so that its cas numbers begin anew
    Bounce "bounce",
    /// a server is stopped for a while (SIGSTOP)
    Freeze "freeze",
    /// a server is flushed
    Flush "flush",
    /// a server with 1 MiB takes the place of one, and is filled by others
    Starve "starve",
    /// a server that takes few connections takes the place of one
    Crowd "crowd",
    /// everything between a process and a server is late
    Delay "delay",
    /// connections are closed, and so are new ones
    Cut "cut",
    /// nothing arrives in either direction, and all of it in the end
    Hold "hold",
    /// requests arrive, and answers do not until the end
    Mute "mute",
    /// answers arrive, and requests do not until the end
    Deaf "deaf",
    /// few bytes a second pass
    Throttle "throttle",
    /// answers are damaged, but for those that hold the journal
    Garble "garble",
    /// bytes are damaged in both directions; a run with this judges no staleness, and `all` does not include it
    Scramble "scramble",
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(name: &str) -> Result<Fault, String> {
        let known = Fault::ALL.iter().find(|fault| fault.name() == name);
        known.copied().ok_or_else(|| format!("there is no fault {name:?}: see --help"))
    }
}
