//! One rule of a VirtualService, understood on its own. Names are not looked up here, and values are judged by
//! `validate()` alone.

use umbra_index::Kind;
use umbra_index::api::{Delegate, Destination, HttpRoute, ObjectKey, Percent, VirtualService, values};
use umbra_routing::{
    BackendRef, Fault, MIRROR_DENOMINATOR, Mirror, RequestMatch, Rule, RuleOrigin, ServiceName,
    WeightedBackend,
};

use crate::actions::{self, Actions, HeaderSpec, combine, default_retries};
use crate::finding::{ObjectRef, Reason};
use crate::matches::{self, BlockSpec};
use crate::report::Report;

const _: () = assert!(values::ALL == MIRROR_DENOMINATOR, "a spec's shares are the wire's");

/// One rule that can be reached.
#[derive(Clone, Debug)]
pub(crate) struct RuleSpec {
    /// As written.
    pub(crate) name: Option<String>,
    /// `http[N]`, for rules without a name.
    pub(crate) place: String,
    /// Where its destinations are written: of a delegate's rule, there.
    pub(crate) origin: RuleOrigin,
    /// None: every request.
    pub(crate) blocks: Vec<BlockSpec>,
    pub(crate) destinations: Vec<DestinationSpec>,
    pub(crate) mirror: Option<Target>,
    pub(crate) mirror_share: MirrorShare,
    pub(crate) mirrors: Vec<(u32, Target)>,
    pub(crate) actions: Actions,
    /// The VirtualService whose rules stand in for this one.
    pub(crate) delegate: Option<ObjectKey>,
}

/// A destination with its share; weight 0 stands only for one to look up and not to use.
#[derive(Clone, Debug)]
pub(crate) struct DestinationSpec {
    pub(crate) weight: u32,
    pub(crate) target: Target,
    pub(crate) headers: Option<HeaderSpec>,
}

/// A destination and where it is written: short names are of that object's namespace.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) object: ObjectRef,
    pub(crate) path: String,
    pub(crate) destination: Destination,
}

/// The share of `mirror`, field by field, because a delegate takes each from its root (spec/istio.md 4.7).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MirrorShare {
    pub(crate) percentage: Option<u32>,
    pub(crate) percent: Option<u32>,
}

impl MirrorShare {
    /// The newer field beats the older ones, and none at all means everything.
    fn per_million(self) -> u32 {
        self.percentage.or(self.percent).unwrap_or(MIRROR_DENOMINATOR)
    }
}

impl RuleSpec {
    /// What people and metrics call it.
    pub(crate) fn label(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.place.clone())
    }

    /// Every request of every client fits.
    pub(crate) fn takes_everything(&self) -> bool {
        self.blocks.is_empty() || self.blocks.iter().any(BlockSpec::takes_everything)
    }

    /// Where copies go and how many: `mirror` and `mirrors` both copy (spec/istio.md 4.8); a share of 0 is no mirror.
    pub(crate) fn all_mirrors(&self) -> impl Iterator<Item = (u32, &Target)> {
        let one = self.mirror.iter().map(|target| (self.mirror_share.per_million(), target));
        let all = one.chain(self.mirrors.iter().map(|(share, target)| (*share, target)));
        all.filter(|(share, _)| *share > 0)
    }

    /// As nodes get it, with what its destinations and mirrors are found to be.
    pub(crate) fn on_the_wire(
        &self,
        matches: Vec<RequestMatch>,
        mut backend: impl FnMut(&Target) -> BackendRef,
    ) -> Rule {
        let (name, origin) = (self.label(), Some(self.origin.clone()));
        let rule = Rule { name, origin, matches, ..Rule::default() };
        let actions = &self.actions;
        if let Some(answer) = actions.answer() {
            let (headers, _) = combine(actions.headers.as_ref(), &[None]);
            return Rule { answer: Some(answer), headers, ..rule };
        }
        let listed: Vec<_> = self.destinations.iter().map(|to| to.headers.clone()).collect();
        let (headers, of_destinations) = combine(actions.headers.as_ref(), &listed);
        let mut destinations = Vec::new();
        for (to, headers) in self.destinations.iter().zip(of_destinations) {
            // Also looked up at weight 0: the author learns of a bad name before giving it a share.
            let backend = backend(&to.target);
            if to.weight > 0 {
                destinations.push(WeightedBackend { weight: to.weight, backend, headers });
            }
        }
        let mirrors = self.all_mirrors();
        let mirrors = mirrors.map(|(share, to)| Mirror::new(share, backend(to))).collect();
        Rule {
            destinations,
            mirrors,
            headers,
            rewrite: actions.rewrite.clone(),
            timeout_ms: actions.timeout_ms,
            retries: actions.retries.clone().unwrap_or_else(|| Some(default_retries())),
            fault: actions.fault.clone().filter(|fault| *fault != Fault::default()),
            cors: actions.cors.clone().flatten(),
            ..rule
        }
    }

    /// Everything it names.
    pub(crate) fn targets(&self) -> impl Iterator<Item = &Target> {
        self.destinations.iter().map(|to| &to.target).chain(self.all_mirrors().map(|(_, target)| target))
    }
}

/// Reads rule `index` of an object.
pub(crate) fn read(report: &mut Report, vs: &VirtualService, index: usize, rule: &HttpRoute) -> RuleSpec {
    let origin = RuleOrigin { virtual_service: vs.metadata.key().to_string(), rule: index };
    let place = format!("http[{index}]");
    let path = format!("spec.{place}");
    let mut reader = Reader { report, object: ObjectRef::new(Kind::VirtualService, &vs.metadata), path };
    reader.report.unsupported(&reader.path, &rule.rest);
    let actions = Actions::read(reader.report, &reader.path, rule);
    let spec = RuleSpec {
        name: rule.name.clone().filter(|name| !name.is_empty()),
        place,
        origin,
        blocks: reader.blocks(rule),
        destinations: reader.destinations(rule),
        mirror: rule.mirror.as_ref().map(|to| reader.target("mirror", to)),
        mirror_share: reader.mirror_share(rule),
        mirrors: reader.mirrors(rule),
        actions,
        delegate: rule.delegate.as_ref().map(|delegate| reader.delegate(delegate)),
    };
    reader.nodes_can_use(&spec);
    spec
}

struct Reader<'r> {
    report: &'r mut Report,
    object: ObjectRef,
    path: String,
}

impl Reader<'_> {
    fn blocks(&mut self, rule: &HttpRoute) -> Vec<BlockSpec> {
        let blocks = rule.matches.iter().enumerate();
        blocks
            .map(|(at, block)| matches::block(self.report, &format!("{}.match[{at}]", self.path), block))
            .collect()
    }

    /// A single destination gets everything whatever its weight; several share by weight.
    fn destinations(&mut self, rule: &HttpRoute) -> Vec<DestinationSpec> {
        let single = rule.route.len() == 1;
        let mut destinations = Vec::new();
        for (at, entry) in rule.route.iter().enumerate() {
            let field = format!("route[{at}]");
            let path = format!("{}.{field}", self.path);
            self.report.unsupported(&path, &entry.rest);
            let headers = entry.headers.as_ref();
            destinations.push(DestinationSpec {
                weight: if single { 1 } else { values::weight(entry.weight).unwrap_or(0) },
                target: self.target(&format!("{field}.destination"), &entry.destination),
                headers: headers.map(|it| actions::headers(self.report, &format!("{path}.headers"), it)),
            });
        }
        destinations
    }

    fn target(&mut self, field: &str, destination: &Destination) -> Target {
        let path = format!("{}.{field}", self.path);
        self.report.unsupported(&path, &destination.rest);
        if let Some(port) = &destination.port {
            self.report.unsupported(&format!("{path}.port"), &port.rest);
        }
        Target { object: self.object.clone(), path, destination: destination.clone() }
    }

    fn mirror_share(&mut self, rule: &HttpRoute) -> MirrorShare {
        let percentage = rule.mirror_percentage.as_ref();
        let percentage = percentage.map(|percent| self.per_million("mirrorPercentage", percent));
        let percent = rule.mirror_percent.or(rule.mirror_percent_snake);
        MirrorShare { percentage, percent: percent.map(|percent| values::per_million(percent as f64)) }
    }

    fn mirrors(&mut self, rule: &HttpRoute) -> Vec<(u32, Target)> {
        let mut mirrors = Vec::new();
        for (at, policy) in rule.mirrors.iter().enumerate() {
            let field = format!("mirrors[{at}]");
            self.report.unsupported(&format!("{}.{field}", self.path), &policy.rest);
            let share = policy.percentage.as_ref().map_or(MIRROR_DENOMINATOR, |percent| {
                self.per_million(&format!("{field}.percentage"), percent)
            });
            mirrors.push((share, self.target(&format!("{field}.destination"), &policy.destination)));
        }
        mirrors
    }

    fn per_million(&mut self, field: &str, percent: &Percent) -> u32 {
        self.report.unsupported(&format!("{}.{field}", self.path), &percent.rest);
        percent.per_million()
    }

    /// A delegate without a name is as good as one that is not there.
    fn delegate(&mut self, delegate: &Delegate) -> ObjectKey {
        self.report.unsupported(&format!("{}.delegate", self.path), &delegate.rest);
        delegate.key(&self.object.key.namespace)
    }

    /// What no field's own check has found, so that no node refuses a rule that its author was told is fine.
    fn nodes_can_use(&mut self, spec: &RuleSpec) {
        let matches = spec.blocks.iter().map(|block| block.request.clone()).collect();
        let rule = spec.on_the_wire(matches, |_| BackendRef::all(ServiceName::new("", ""), 0));
        if self.report.is_accepted()
            && let Err(error) = rule.check()
        {
            self.report.reject(Reason::Invalid, self.path.clone(), error.to_string());
        }
    }
}

/// Which fields of `spec` are about other protocols.
pub(crate) fn not_http(vs: &VirtualService) -> impl Iterator<Item = &str> {
    let given = [("tls", !vs.spec.tls.is_empty()), ("tcp", !vs.spec.tcp.is_empty())];
    given.into_iter().filter_map(|(field, given): (&str, bool)| given.then_some(field))
}
