wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer sk-test"
wrk.body = '{"model":"base","messages":[{"role":"system","content":"You are a helpful assistant."},{"role":"user","content":"How should I prioritise my tasks today?"}]}'
