//! The bytes of a request: HTTP head and JSON body, made before they are needed.
//!
//! Pure. All but the prompt is written once for a phase.

use super::message::{LoadPlan, RequestPlan};
use crate::sweep::def::Endpoint;

/// What every request of a phase has in common.
#[derive(Clone, Debug)]
pub(crate) struct RequestTemplate {
    /// Up to the number in `Content-Length`.
    head: String,
    before_prompt: String,
    after_prompt: &'static str,
}

impl RequestTemplate {
    pub(crate) fn new(plan: &LoadPlan) -> Result<Self, serde_json::Error> {
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: {}:{}\r\nUser-Agent: sweepd\r\nAccept: text/event-stream\r\n\
             Content-Type: application/json\r\nContent-Length: ",
            plan.request.path, plan.host, plan.port
        );
        let (before_prompt, after_prompt) = around_prompt(&plan.request)?;
        Ok(Self { head, before_prompt, after_prompt })
    }

    pub(crate) fn bytes(&self, prompt: &str) -> Result<Vec<u8>, serde_json::Error> {
        let prompt = serde_json::to_string(prompt)?;
        let length = self.before_prompt.len() + prompt.len() + self.after_prompt.len();
        let request = [
            self.head.as_str(),
            &length.to_string(),
            "\r\n\r\n",
            &self.before_prompt,
            &prompt,
            self.after_prompt,
        ];
        Ok(request.concat().into_bytes())
    }
}

fn around_prompt(request: &RequestPlan) -> Result<(String, &'static str), serde_json::Error> {
    let mut body = serde_json::to_string(&request.body)?;
    body.truncate(body.len().saturating_sub(1));
    if !request.body.is_empty() {
        body.push(',');
    }
    Ok(match request.endpoint {
        Endpoint::Completions => (body + "\"prompt\":", "}"),
        Endpoint::Chat => (body + "\"messages\":[{\"role\":\"user\",\"content\":", "}]}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn body_of(endpoint: Endpoint, body: &Value, prompt: &str) -> Value {
        let plan = super::super::driver::tests::plan_for(1, endpoint, body);
        let bytes = RequestTemplate::new(&plan).unwrap().bytes(prompt).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("POST /v1/x HTTP/1.1\r\nHost: 127.0.0.1:1\r\n"), "{head}");
        let length = format!("Content-Length: {}", body.len());
        assert!(head.lines().any(|line| line == length), "{head}");
        serde_json::from_str(body).unwrap()
    }

    #[test]
    fn the_prompt_goes_where_the_endpoint_wants_it() {
        let prompt = "a \"b\"\n\u{e9}";
        assert_eq!(
            body_of(Endpoint::Completions, &json!({"model": "m", "stream": true}), prompt),
            json!({"model": "m", "stream": true, "prompt": prompt})
        );
        assert_eq!(
            body_of(Endpoint::Chat, &json!({"model": "m"}), prompt),
            json!({"model": "m", "messages": [{"role": "user", "content": prompt}]})
        );
        assert_eq!(body_of(Endpoint::Completions, &json!({}), prompt), json!({"prompt": prompt}));
    }
}
