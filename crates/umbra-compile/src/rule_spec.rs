//! One rule of a VirtualService, understood on its own. Names are not looked up here.

use umbra_index::Kind;
use umbra_index::api::{
    Delegate, Destination, HttpRoute, HttpRouteDestination, ObjectKey, Percent, VirtualService,
};
use umbra_routing::{
    BackendRef, Fault, MIRROR_DENOMINATOR, Mirror, RedirectPath, RequestMatch, Rule, RuleOrigin, ServiceName,
    StringMatch, WeightedBackend,
};

use crate::actions::{self, Actions, HeaderSpec, combine, default_retries};
use crate::finding::{ObjectRef, Reason};
use crate::matches::{self, BlockSpec};
use crate::report::Report;
use crate::share;

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
        let mirrors =
            mirrors.map(|(share, to)| Mirror { backend: backend(to), per_million: share }).collect();
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
    reader.one_of(rule);
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
    reader.authority_is_said_once(&spec);
    reader.prefix_is_matched(&spec);
    reader.nodes_can_use(&spec);
    spec
}

struct Reader<'r> {
    report: &'r mut Report,
    object: ObjectRef,
    path: String,
}

impl Reader<'_> {
    fn invalid(&mut self, field: &str, message: impl Into<String>) {
        self.report.reject(Reason::Invalid, format!("{}.{field}", self.path), message);
    }

    /// A rule answers in one way (spec/istio.md 3.1).
    fn one_of(&mut self, rule: &HttpRoute) {
        let answers =
            [("redirect", rule.redirect.is_some()), ("directResponse", rule.direct_response.is_some())];
        let routes = !rule.route.is_empty();
        if rule.delegate.is_some() {
            for (field, _) in [("route", routes), answers[0]].into_iter().filter(|(_, given)| *given) {
                self.invalid(field, format!("stands beside delegate, whose rules serve; remove {field}"));
            }
            return;
        }
        let given: Vec<_> = answers.into_iter().filter_map(|(field, given)| given.then_some(field)).collect();
        match given[..] {
            [] if routes => {}
            [] => self.invalid("route", "the rule sends requests nowhere; add a destination"),
            [answer] if routes => {
                self.invalid("route", format!("stands beside {answer}; keep one of the two"))
            }
            [answer] => self.only_an_answer(rule, answer),
            _ => self.invalid("directResponse", "stands beside redirect; keep one of the two"),
        }
    }

    fn only_an_answer(&mut self, rule: &HttpRoute, answer: &str) {
        for (field, given) in [("fault", rule.fault.is_some()), ("rewrite", rule.rewrite.is_some())] {
            if given {
                self.invalid(field, format!("has no place beside {answer}; remove it"));
            }
        }
        if rule.mirror.is_some() || !rule.mirrors.is_empty() {
            let field = if rule.mirror.is_some() { "mirror" } else { "mirrors" };
            let message =
                format!("nothing is copied of requests that {answer} answers; the mirror is left out");
            self.report.note(Reason::PartiallyInvalid, format!("{}.{field}", self.path), message);
        }
    }

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
                weight: if single { 1 } else { self.weight(&field, entry) },
                target: self.target(&format!("{field}.destination"), &entry.destination),
                headers: headers.map(|it| actions::headers(self.report, &format!("{path}.headers"), it)),
            });
        }
        if !single && !destinations.is_empty() && destinations.iter().all(|to| to.weight == 0) {
            self.invalid("route", "the weights add up to 0; give at least one a weight");
        }
        destinations
    }

    fn weight(&mut self, field: &str, entry: &HttpRouteDestination) -> u32 {
        let weight = entry.weight.unwrap_or(0);
        u32::try_from(weight).unwrap_or_else(|_| {
            self.invalid(&format!("{field}.weight"), format!("{weight} is not a weight; give 0 to 100"));
            0
        })
    }

    fn target(&mut self, field: &str, destination: &Destination) -> Target {
        let path = format!("{}.{field}", self.path);
        self.report.unsupported(&path, &destination.rest);
        if let Some(port) = &destination.port {
            self.report.unsupported(&format!("{path}.port"), &port.rest);
        }
        if destination.host == "*" {
            self.report.reject(
                Reason::Invalid,
                format!("{path}.host"),
                "\"*\" is no destination; name a Service",
            );
        }
        Target { object: self.object.clone(), path, destination: destination.clone() }
    }

    fn mirror_share(&mut self, rule: &HttpRoute) -> MirrorShare {
        let percentage = rule.mirror_percentage.as_ref();
        let percentage = percentage.map(|percent| self.per_million("mirrorPercentage", percent));
        let percent = rule.mirror_percent.or(rule.mirror_percent_snake);
        MirrorShare { percentage, percent: percent.map(|percent| share::per_million(percent as f64)) }
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
        share::per_million(percent.value)
    }

    /// A delegate without a name is as good as one that is not there.
    fn delegate(&mut self, delegate: &Delegate) -> ObjectKey {
        self.report.unsupported(&format!("{}.delegate", self.path), &delegate.rest);
        let namespace = delegate.namespace.clone().filter(|namespace| !namespace.is_empty());
        let namespace = namespace.unwrap_or_else(|| self.object.key.namespace.clone());
        ObjectKey::new(namespace, delegate.name.clone().unwrap_or_default())
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

    /// A redirect replaces a prefix that its blocks match, or `/` (spec/istio.md 1A).
    fn prefix_is_matched(&mut self, spec: &RuleSpec) {
        let redirect = spec.actions.redirect.as_ref();
        let replaces = redirect.is_some_and(|it| matches!(it.path, Some(RedirectPath::Prefix(_))));
        let is_other = |block: &BlockSpec| {
            matches!(block.request.uri, Some(StringMatch::Exact(_) | StringMatch::Regex(_)))
        };
        if replaces && spec.blocks.iter().any(is_other) {
            let message = "a match of this rule has no uri prefix to replace; use uri, or match by prefix";
            self.invalid("redirect.prefixRewrite", message);
        }
    }

    /// `rewrite.authority` and an operation on Host are the same thing twice (spec/istio.md 1A).
    fn authority_is_said_once(&mut self, spec: &RuleSpec) {
        if spec.actions.rewrite.as_ref().is_none_or(|rewrite| rewrite.authority.is_none()) {
            return;
        }
        let says = |headers: &Option<HeaderSpec>| headers.as_ref().is_some_and(|it| it.authority.is_some());
        if says(&spec.actions.headers) || spec.destinations.iter().any(|to| says(&to.headers)) {
            let message = "the authority is set by a header operation on Host, too; keep one of the two";
            self.invalid("rewrite.authority", message);
        }
    }
}

/// Which fields of `spec` are about other protocols.
pub(crate) fn not_http(vs: &VirtualService) -> impl Iterator<Item = &str> {
    let given = [("tls", !vs.spec.tls.is_empty()), ("tcp", !vs.spec.tcp.is_empty())];
    given.into_iter().filter_map(|(field, given): (&str, bool)| given.then_some(field))
}
