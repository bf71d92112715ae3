use proptest::prelude::*;
use serde_json::json;

use super::*;

/// What `Message.encode` of dramatiq 2.2 writes: `json.dumps(…, separators=(",", ":"))`, in this order.
const BODY: &str = r#"{"queue_name":"default.DQ","actor_name":"add","args":[1,"s3cret \"]"],"kwargs":{"k":{"v":"s3cret"}},"options":{"retries":2,"eta":1700000000123,"traceback":"Traceback (most recent call last):\n  boom","pipe_target":{"actor_name":"next","args":["s3cret"],"kwargs":{}}},"message_id":"0ab1","message_timestamp":1699999999000}"#;

fn message() -> DramatiqMessage {
    DramatiqMessage {
        max_age_ms: None,
        time_limit_ms: None,
        message_id: Some("0ab1".into()),
        actor_name: Some("add".into()),
        queue_name: Some("default.DQ".into()),
        message_timestamp_ms: Some(1_699_999_999_000),
        retries: Some(2),
        eta_ms: Some(1_700_000_000_123),
        traceback: Some("Traceback (most recent call last):\n  boom".into()),
        is_canary: false,
        is_partial: false,
    }
}

#[test]
fn a_message_is_read_without_its_arguments() {
    assert_eq!(DramatiqMessage::decode(BODY.as_bytes(), true), Ok(message()));
    assert!(!serde_json::to_string(&message()).unwrap().contains("s3cret"));
}

#[test]
fn a_masked_body_reads_the_same_and_shows_no_argument() {
    let mut body = BODY.as_bytes().to_vec();
    let ranges = mask_body(&mut body);
    let text = String::from_utf8(body.clone()).unwrap();
    assert_eq!(body.len(), BODY.len());
    assert!(!text.contains("s3cret"), "{text}");
    assert!(text.contains(r#""args":"**************","kwargs":"******************","options""#), "{text}");
    assert_eq!(ranges.len(), 4);
    assert_eq!(DramatiqMessage::decode(&body, true), Ok(message()));
}

#[test]
fn a_canary_is_what_says_true_and_nothing_else() {
    for (marker, is_canary) in
        [(r#""observer_canary":true"#, true), (r#""observer_canary":1"#, false), (r#""canary":true"#, false)]
    {
        let mut body = format!(r#"{{"actor_name":"a","args":[true],"options":{{{marker}}}}}"#).into_bytes();
        assert_eq!(DramatiqMessage::decode(&body, true).unwrap().is_canary, is_canary, "{marker}");
        mask_body(&mut body);
        assert_eq!(DramatiqMessage::decode(&body, true).unwrap().is_canary, is_canary, "{marker}, masked");
    }
}

#[test]
fn a_cut_off_body_gives_what_is_whole() {
    let cut = BODY.find("s3cret").unwrap();
    let read = DramatiqMessage::decode(&BODY.as_bytes()[..cut], false).unwrap();
    assert_eq!(read.actor_name.as_deref(), Some("add"));
    assert_eq!(read.queue_name.as_deref(), Some("default.DQ"));
    assert_eq!(read.message_id, None);
    assert!(read.is_partial);
    assert_eq!(DramatiqMessage::decode(b"{\"queue", false), Err(Undecodable::NoActor));
}

#[test]
fn what_is_no_dramatiq_message_says_why_and_quotes_nothing() {
    for (body, why) in [
        (&b""[..], "the body is empty"),
        (b"\x80\x04\x95s3cret", "the body is not JSON (line 1, column 1)"),
        (b"\"s3cret\"", "the body is JSON, but not an object"),
        (b"[[1], {}, {\"s3cret\": null}]", "the body is JSON, but not an object"),
        (b"{\"s3cret\": 1}", "the body is a JSON object without an actor_name"),
        (b"{\"actor_name\": 7}", "the body is a JSON object without an actor_name"),
        (b"{\"actor_name\": \"a\"", "the body is not JSON (line 1, column 18)"),
    ] {
        assert_eq!(DramatiqMessage::decode(body, true).unwrap_err().to_string(), why);
    }
    let odd = br#"{"actor_name":"a","options":3,"message_id":[],"actor_name":"b"}"#;
    let read = DramatiqMessage::decode(odd, true).unwrap();
    assert_eq!((read.actor_name.as_deref(), read.message_id), (Some("b"), None));
}

#[test]
fn what_cannot_be_judged_is_blanked() {
    let masked = |body: &str| {
        let mut body = body.as_bytes().to_vec();
        mask_body(&mut body);
        String::from_utf8(body).unwrap()
    };
    assert_eq!(masked("s3cret"), "******");
    assert_eq!(masked("[1]"), "***");
    assert_eq!(masked("{\"options\":1} s3"), "{\"options\":1} **");
    assert_eq!(masked("{\"options\":1]s3"), "{\"options\":1***");
    assert_eq!(
        masked(r#"{"options":{"\u0061rgs":[1,2],"b":3}}"#),
        r#"{"options":{"\u0061rgs":"***","b":3}}"#
    );
    assert_eq!(masked(r#"{"args":12345,"options":null}"#), r#"{"args":0    ,"options":null}"#);
    assert_eq!(masked(r#"{"args": [1"#), r#"{"args": "*"#);
    assert_eq!(masked(r#"{"options":["args",7]}"#), r#"{"options":["args",7]}"#);
}

#[test]
fn an_object_that_is_no_dramatiq_message_is_blanked() {
    let masked = |body: &str| {
        let mut body = body.as_bytes().to_vec();
        mask_body(&mut body);
        String::from_utf8(body).unwrap()
    };
    assert_eq!(masked(r#"{"password":"s3cret"}"#), r#"{"*******************"#);
    assert_eq!(masked(r#"{"actor_name":"a","argument":7}"#), r#"{"actor_name":"a","arg*********"#);
    assert_eq!(masked(r#"{"arg":7}"#), r#"{"arg****"#);
    assert_eq!(masked(r#"{"\u0061rgs":7}"#), r#"{"*************"#);
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<i32>().prop_map(Value::from),
        "[a-z\"\\\\\u{7}é]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[a-z\"]{1,5}", inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

proptest! {
    #[test]
    fn arguments_vanish_and_the_rest_stays(args in value(), kwargs in value(), other in value(), pretty in any::<bool>()) {
        let before = json!({"actor_name": "a", "args": args, "options": other, "kwargs": kwargs, "message_id": "m"});
        let text = if pretty { serde_json::to_string_pretty(&before) } else { serde_json::to_string(&before) }.unwrap();
        let mut body = text.clone().into_bytes();
        let ranges = mask_body(&mut body);
        prop_assert_eq!(body.len(), text.len());
        prop_assert!(ranges.len() >= 2);
        let after: Value = serde_json::from_slice(&body).unwrap();
        for key in ["args", "kwargs"] {
            let blank = after[key].as_str().is_some_and(|text| text.bytes().all(|byte| byte == b'*'));
            prop_assert!(blank || after[key] == 0, "{}", after[key]);
        }
        prop_assert_eq!(&after["actor_name"], "a");
        prop_assert_eq!(&after["message_id"], "m");
        if !before["options"].to_string().contains('\\') && !before["options"].to_string().contains("args") {
            prop_assert_eq!(&after["options"], &before["options"]);
        }
    }

    #[test]
    fn any_split_masks_the_same(
        body in prop_oneof![Just(BODY.to_owned()), value().prop_map(|value| value.to_string()), any::<String>()],
        cuts in proptest::collection::vec(any::<usize>(), 0..20),
    ) {
        let mut whole = body.clone().into_bytes();
        mask_body(&mut whole);
        let mut pieces = body.into_bytes();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (pieces.len() + 1)).chain([0, pieces.len()]).collect();
        cuts.sort_unstable();
        let mut masker = BodyMasker::new();
        for cut in cuts.windows(2) {
            masker.mask(&mut pieces[cut[0]..cut[1]]);
        }
        prop_assert_eq!(pieces, whole);
    }

    #[test]
    fn any_bytes_are_survived(body in proptest::collection::vec(any::<u8>(), 0..200), is_whole in any::<bool>()) {
        let _ = DramatiqMessage::decode(&body, is_whole);
        mask_body(&mut body.clone());
    }

    #[test]
    fn any_cut_is_survived(at in 0..BODY.len()) {
        if let Ok(read) = DramatiqMessage::decode(&BODY.as_bytes()[..at], false) {
            prop_assert_eq!(read.actor_name.as_deref(), Some("add"));
        }
    }
}
