//! Cases that umbra answers otherwise than Istio, each with the reason. One that comes to agree fails the test, so that it
//! is taken from here.

const POLICY: &str = "waits for traffic policies: a finding until then";
const REFUSED: &str =
    "on purpose: Istio's own admission check refuses it, so umbra holds it, or its CRD refuses it";
const UNKNOWN_KEPT: &str =
    "on purpose: fields of newer versions are kept and never widen a match, so the schema lets them pass";
const INDEPENDENT: &str = "on purpose: independent draws, so that shares are what they say";
const UPGRADES: &str =
    "on purpose: a copy of a tunnel is half a conversation, so upgrades are counted and not copied";

const DIFFERS: [(&str, &str); 14] = [
    ("a pod that answers 5xx is ejected after the given number and its subset answers 503", POLICY),
    ("a younger DestinationRule gives its hash when the older has no trafficPolicy", POLICY),
    ("portLevelSettings replace the policy of the DestinationRule as a whole", POLICY),
    ("with tls mode SIMPLE a pod that speaks plain text is answered 503", POLICY),
    ("a percentage above 100 copies every request", REFUSED),
    ("a redirect of the root is not inherited, a direct response is", REFUSED),
    ("destination.port without a number", REFUSED),
    ("exportTo a star beside a name", REFUSED),
    ("mirror and mirrors in one rule both copy", REFUSED),
    ("of a rule with both a delegate and a route only the delegate counts", REFUSED),
    ("subset names are compared with case", REFUSED),
    ("the schema refuses these matches", UNKNOWN_KEPT),
    ("an upgrade request is copied, whether or not the pod upgrades", UPGRADES),
    ("two mirrors of 50 percent copy the same requests", INDEPENDENT),
];

/// Why a case differs, if it may.
pub(crate) fn of(case: &str) -> Option<&'static str> {
    DIFFERS.iter().find(|(name, _)| *name == case).map(|(_, reason)| *reason)
}
