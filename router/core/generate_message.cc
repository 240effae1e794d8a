#include "router/core/generate_message.h"

namespace longhaul {

SampledToken FromProto(const GenerateEvent::Token& token) {
  SampledToken sampled;
  sampled.token = token.token();
  sampled.logprob = token.logprob();
  for (const auto& top : token.top_logprobs()) {
    sampled.top_logprobs.emplace_back(top.token(), top.logprob());
  }
  return sampled;
}

void ToProto(const SamplingParams& params, Sampling& proto) {
  proto.set_temperature(params.temperature);
  proto.set_top_p(params.top_p);
  proto.set_top_k(params.top_k);
  proto.set_min_p(params.min_p);
  proto.set_repetition_penalty(params.repetition_penalty);
  proto.set_presence_penalty(params.presence_penalty);
  proto.set_frequency_penalty(params.frequency_penalty);
  proto.set_seed(params.seed);
  proto.set_top_logprobs(params.top_logprobs);
  for (const auto& [token, bias] : params.logit_bias) {
    auto* entry = proto.add_logit_bias();
    entry->set_token(token);
    entry->set_bias(bias);
  }
}

GenerateStart StartOf(const GenerateEvent::Timing& timing) {
  GenerateStart start;
  start.prefill_name = timing.prefill_name();
  start.path = timing.path();
  start.transport = timing.transport();
  start.cached_tokens = timing.cached_tokens();
  start.kv_bytes = timing.kv_bytes();
  start.kv_us = timing.kv_us();
  start.queue_us = timing.queue_us();
  start.prefill_us = timing.prefill_us();
  start.transfer_exposed_us = timing.transfer_exposed_us();
  start.first_decode_us = timing.first_decode_us();
  return start;
}

}  // namespace longhaul
