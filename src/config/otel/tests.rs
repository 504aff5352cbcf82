use super::*;

fn read(variables: &[(&str, &str)]) -> Result<Option<Tracing>, Vec<String>> {
    let variables: Vec<(OsString, OsString)> = variables
        .iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    let mut problems = Vec::new();
    let tracing = Tracing::read(&variables, &mut problems);
    if problems.is_empty() {
        Ok(tracing)
    } else {
        Err(problems.iter().map(ToString::to_string).collect())
    }
}

const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/");

#[test]
fn nothing_is_traced_without_an_endpoint_or_when_it_is_turned_off() {
    assert_eq!(read(&[("OTEL_SERVICE_NAME", "x")]), Ok(None));
    assert_eq!(read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]), Ok(None));
    assert_eq!(read(&[ENDPOINT, ("OTEL_SDK_DISABLED", "TRUE")]), Ok(None));
    assert_eq!(
        read(&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")]),
        Ok(None)
    );
}

#[test]
fn defaults_are_those_of_the_specification() {
    let tracing = read(&[ENDPOINT]).unwrap().unwrap();
    assert_eq!(tracing.endpoint, "http://collector:4318/v1/traces");
    assert_eq!(tracing.protocol, Protocol::HttpProtobuf);
    assert_eq!(tracing.timeout, Duration::from_secs(10));
    assert_eq!(tracing.export_timeout, Duration::from_secs(30));
    assert_eq!(tracing.schedule_delay, Duration::from_secs(5));
    assert_eq!(
        (tracing.max_queue_size, tracing.max_export_batch_size),
        (2048, 512)
    );
    let all = Sampler {
        parent_based: true,
        ratio: 1.0,
    };
    assert_eq!(tracing.sampler, all);
    assert_eq!(
        tracing.resource,
        [("service.name".to_owned(), "outgate".to_owned())]
    );
}

#[test]
fn a_variable_for_traces_wins_over_that_for_every_signal() {
    let tracing = read(&[
        ENDPOINT,
        (
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "https://traces:4318/own",
        ),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "1000"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "250"),
    ])
    .unwrap()
    .unwrap();
    assert_eq!(tracing.endpoint, "https://traces:4318/own");
    assert_eq!(tracing.protocol, Protocol::Grpc);
    assert_eq!(tracing.timeout, Duration::from_millis(250));
}

#[test]
fn samplers_and_their_argument() {
    for (name, argument, parent_based, ratio) in [
        ("always_on", "", false, 1.0),
        ("always_off", "", false, 0.0),
        ("traceidratio", "0.25", false, 0.25),
        ("traceidratio", "", false, 1.0),
        ("parentbased_always_off", "0.5", true, 0.0),
        ("parentbased_traceidratio", "0.5", true, 0.5),
    ] {
        let variables = [
            ENDPOINT,
            ("OTEL_TRACES_SAMPLER", name),
            ("OTEL_TRACES_SAMPLER_ARG", argument),
        ];
        let expected = Sampler {
            parent_based,
            ratio,
        };
        assert_eq!(
            read(&variables).unwrap().unwrap().sampler,
            expected,
            "{name}"
        );
    }
}

#[test]
fn the_service_name_wins_over_the_resource_attribute() {
    let attributes = (
        "OTEL_RESOURCE_ATTRIBUTES",
        "service.name=a,k8s.pod.name=gate%2D0",
    );
    let tracing = read(&[ENDPOINT, attributes]).unwrap().unwrap();
    let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    };
    assert_eq!(
        tracing.resource,
        pairs(&[("service.name", "a"), ("k8s.pod.name", "gate-0")])
    );
    let tracing = read(&[ENDPOINT, attributes, ("OTEL_SERVICE_NAME", "b")])
        .unwrap()
        .unwrap();
    assert_eq!(
        tracing.resource,
        pairs(&[("k8s.pod.name", "gate-0"), ("service.name", "b")])
    );
}

#[test]
fn headers_are_decoded_and_never_shown() {
    let headers = (
        "OTEL_EXPORTER_OTLP_HEADERS",
        "Authorization=Bearer%20t0p, x-tenant=a",
    );
    let tracing = read(&[ENDPOINT, headers]).unwrap().unwrap();
    assert_eq!(tracing.headers[0].0, "authorization");
    assert_eq!(tracing.headers[0].1, "Bearer t0p");
    let shown = format!("{tracing:?} {:?}", tracing.values());
    assert!(!shown.contains("t0p"), "{shown}");
    assert!(shown.contains("authorization=***,x-tenant=***"), "{shown}");
    let broken = read(&[ENDPOINT, ("OTEL_EXPORTER_OTLP_HEADERS", "t0p")]).unwrap_err();
    assert!(!broken[0].contains("t0p"), "{broken:?}");
}

#[test]
fn an_endpoint_with_credentials_or_a_key_is_refused_without_repeating_them() {
    for variable in [
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    ] {
        for url in [
            "http://user:t0p@collector:4318",
            "https://t0p@collector/v1/traces",
            "user:t0p@collector:4318",
            "http://user:t0p @collector",
            "collector:4318/v1/traces?key=t0p",
            "http://collector:4318/?key=t0p 1",
        ] {
            let problems = read(&[(variable, url)]).unwrap_err();
            let told = problems[0].starts_with(&format!("{variable}=\"***\": "));
            assert!(told && !problems[0].contains("t0p"), "{url}: {problems:?}");
        }
        let problems = read(&[(variable, "http://user:t0p@collector:4318")]).unwrap_err();
        assert!(
            problems[0].contains("OTEL_EXPORTER_OTLP_HEADERS"),
            "{problems:?}"
        );
    }
}

#[test]
fn the_query_of_an_endpoint_is_kept_and_not_shown() {
    let endpoint = (
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "https://collector/v1/traces?key=t0p",
    );
    let tracing = read(&[endpoint]).unwrap().unwrap();
    assert_eq!(tracing.endpoint, endpoint.1);
    assert_eq!(tracing.values()[0].1, "https://collector/v1/traces?***");
}

#[test]
fn the_path_of_the_traces_goes_before_the_query_of_an_endpoint() {
    for (endpoint, protocol, expected) in [
        (
            "http://c:4318?key=k/1/",
            "http/protobuf",
            "http://c:4318/v1/traces?key=k/1/",
        ),
        (
            "http://c:4318/own/?key=k",
            "http/protobuf",
            "http://c:4318/own/v1/traces?key=k",
        ),
        (
            "http://c:4318/#part",
            "http/protobuf",
            "http://c:4318/v1/traces",
        ),
        ("http://c:4317/?key=k", "grpc", "http://c:4317/?key=k"),
    ] {
        let tracing = read(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
        ]);
        let tracing = tracing.unwrap().unwrap();
        assert_eq!(tracing.endpoint, expected, "{endpoint}");
    }
}

#[test]
fn every_bad_value_is_told_with_its_variable() {
    for (name, value) in [
        ("OTEL_SDK_DISABLED", "perhaps"),
        ("OTEL_TRACES_EXPORTER", "console"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "collector:4317"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "none"),
        ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", ""),
        ("OTEL_RESOURCE_ATTRIBUTES", "novalue"),
        ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        // A queue that long cannot be made.
        ("OTEL_BSP_MAX_QUEUE_SIZE", "18446744073709551615"),
        ("OTEL_BSP_SCHEDULE_DELAY", "-1"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "0"),
    ] {
        let problems = read(&[ENDPOINT, (name, value)]).unwrap_err();
        assert!(
            problems[0].starts_with(&format!("{name}=\"{value}\": "))
                && problems[0].contains("; expected "),
            "{problems:?}"
        );
    }
    let ratio = [
        ENDPOINT,
        ("OTEL_TRACES_SAMPLER", "traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "2"),
    ];
    assert!(read(&ratio).unwrap_err()[0].starts_with("OTEL_TRACES_SAMPLER_ARG=\"2\""));
}

#[test]
fn what_is_wrong_beside_a_bad_endpoint_is_told_with_it() {
    let problems = read(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"),
        ("OTEL_TRACES_SAMPLER", "sometimes"),
        ("OTEL_BSP_SCHEDULE_DELAY", "abc"),
    ]);
    let problems = problems.unwrap_err();
    assert_eq!(problems.len(), 3, "{problems:?}");
}
