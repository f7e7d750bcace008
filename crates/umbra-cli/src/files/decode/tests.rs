use super::*;

fn decoded(text: &str) -> Decoded {
    decode(Path::new("x.yaml"), text)
}

fn names(decoded: &Decoded) -> Vec<String> {
    decoded.objects.iter().map(|(id, ..)| id.to_string()).collect()
}

fn problems(decoded: &Decoded) -> Vec<String> {
    decoded.problems.iter().map(ToString::to_string).collect()
}

#[test]
fn documents_of_several_kinds_and_a_default_namespace() {
    let found = decoded(
        "# head\n---\napiVersion: v1\nkind: Service\nmetadata: {name: a}\n---\n---\n\
         apiVersion: networking.istio.io/v1alpha3\nkind: VirtualService\nmetadata: {name: b, namespace: x}\n\
         spec: {hosts: [a]}\n--- # tail\napiVersion: v1\nkind: Node\nmetadata: {name: n}\n",
    );
    assert_eq!(names(&found), ["service default/a", "virtualservice x/b", "node n"]);
    assert_eq!(problems(&found), [""; 0]);
    let Object::VirtualService(vs) = &found.objects[1].1 else { panic!("not a VirtualService") };
    assert_eq!((vs.metadata.namespace.as_str(), vs.spec.hosts[0].as_str()), ("x", "a"));
}

#[test]
fn a_bad_document_names_itself_and_spares_the_others() {
    let found = decoded(
        "apiVersion: v1\nkind: Service\nmetadata: {name: a\n---\napiVersion: v1\nkind: Pod\nmetadata:\n  \
         name: p\n  labels: {version: 1}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: q}\n",
    );
    assert_eq!(names(&found), ["pod default/q"]);
    let problems = problems(&found);
    assert!(problems[0].starts_with("x.yaml:1: "), "{problems:?}");
    assert_eq!(
        problems[1],
        "x.yaml:4: pod default/p: metadata.labels.version: invalid type: integer `1`, expected a string"
    );
    assert_eq!(problems.len(), 2);
}

#[test]
fn a_parse_error_names_the_line_of_the_file() {
    let found = decoded("kind: A\napiVersion: v1\n---\nkind: B\n  x: [\n");
    assert!(problems(&found)[0].contains("line 5"), "{:?}", problems(&found));
}

#[test]
fn lists_as_kubectl_prints_them() {
    let json = r#"{"apiVersion":"v1","kind":"List","items":[
        {"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"}},
        {"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","metadata":{"name":"s"},"endpoints":null}]}"#;
    assert_eq!(names(&decoded(json)), ["pod default/p", "endpointslice default/s"]);
    let typed = "apiVersion: v1\nkind: PodList\nitems:\n- metadata: {name: p, namespace: x}\n";
    assert_eq!(names(&decoded(typed)), ["pod x/p"]);
}

#[test]
fn other_kinds_are_passed_over_and_said() {
    let found = decoded("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n");
    assert_eq!(found.passed_over, ["Deployment d"]);
    let found = decoded("apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: d}\n");
    assert_eq!((found.passed_over.len(), found.objects.len()), (1, 0), "another group's Service");
}

#[test]
fn what_is_no_object_is_a_problem() {
    let found = decoded("just: text\n---\napiVersion: v1\nkind: Pod\n---\n- a\n");
    assert_eq!(
        problems(&found),
        [
            "x.yaml:1: no kind: not a Kubernetes object",
            "x.yaml:2: pod: metadata.name: missing",
            "x.yaml:5: no kind: not a Kubernetes object"
        ]
    );
}
