//! What a second version of a program can do wrong.

use std::fmt;

/// What a mirror does with its copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Does {
    Answers,
    AnswersAfter10Ms,
    AnswersAfter1S,
    ReadsAndNeverAnswers,
    NeverReads,
    ReadsOneByteASecond,
    ResetsAtOnce,
    /// With the second half of what it is sent unread.
    ResetsHalfWay,
    /// In the middle of its answer.
    BreaksOffItsAnswer,
    /// Nothing listens there.
    Refuses,
    Answers503,
    /// Before it reads the body, which it reads then.
    AnswersEarly,
    /// Ends its half of each connection at once.
    HalfCloses,
    AnswersWithoutEnd,
    /// It has no endpoint.
    IsNotThere,
    /// One request in 40, by a status or in the middle of the answer; which ones, `Backends::failures` says.
    FailsSometimes,
}

impl Does {
    /// What mirrors do; a primary may fail sometimes, too.
    pub(crate) const ALL: [Self; 15] = [
        Self::Answers,
        Self::AnswersAfter10Ms,
        Self::AnswersAfter1S,
        Self::ReadsAndNeverAnswers,
        Self::NeverReads,
        Self::ReadsOneByteASecond,
        Self::ResetsAtOnce,
        Self::ResetsHalfWay,
        Self::BreaksOffItsAnswer,
        Self::Refuses,
        Self::Answers503,
        Self::AnswersEarly,
        Self::HalfCloses,
        Self::AnswersWithoutEnd,
        Self::IsNotThere,
    ];

    /// It speaks HTTP/2 so far that requests are sent to it, and no farther.
    pub(crate) fn is_raw(self) -> bool {
        matches!(self, Self::NeverReads | Self::ReadsOneByteASecond | Self::ResetsHalfWay | Self::HalfCloses)
    }

    /// As a part of a service's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Answers => "answers",
            Self::AnswersAfter10Ms => "answers-after-10ms",
            Self::AnswersAfter1S => "answers-after-1s",
            Self::ReadsAndNeverAnswers => "never-answers",
            Self::NeverReads => "never-reads",
            Self::ReadsOneByteASecond => "reads-1-byte-a-second",
            Self::ResetsAtOnce => "resets-at-once",
            Self::ResetsHalfWay => "resets-half-way",
            Self::BreaksOffItsAnswer => "breaks-off-its-answer",
            Self::Refuses => "refuses",
            Self::Answers503 => "answers-503",
            Self::AnswersEarly => "answers-early",
            Self::HalfCloses => "half-closes",
            Self::AnswersWithoutEnd => "answers-without-end",
            Self::IsNotThere => "is-not-there",
            Self::FailsSometimes => "fails-sometimes",
        }
    }
}

impl fmt::Display for Does {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
