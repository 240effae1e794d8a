// Between the dispatcher's types and the messages of longhaul.proto. Pure.
#pragma once

#include "common/model/sampling.h"
#include "common/proto/longhaul.pb.h"
#include "router/core/dispatcher.h"

namespace longhaul {

SampledToken FromProto(const GenerateEvent::Token& token);
void ToProto(const SamplingParams& params, Sampling& proto);
// What the worker says of the first token; the rest is the dispatcher's to add.
GenerateStart StartOf(const GenerateEvent::Timing& timing);

}  // namespace longhaul
