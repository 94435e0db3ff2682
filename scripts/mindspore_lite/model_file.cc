#include "model_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <map>

// The runtime answers a bad file with "Common error code", and ends the process on some. So the protobuf is walked
// first: every field must end inside its message, the version must be one that the runtime reads, and an attribute
// that says it holds tensors must hold one (the runtime takes the first without looking).
namespace lite_wrapper {
namespace {

constexpr uint64_t kNewestVersion = 1;  // of mind_ir_version, in MindSpore Lite 2.0.0
constexpr uint64_t kTypeTensors = 19;   // AttributeProto.AttributeType.TENSORS
constexpr int kDeepest = 64;

enum Message { kModel, kGraph, kNode, kAttribute, kTensor, kValueInfo, kPrimitive, kMapTensor };

// The fields of mind_ir.proto that are messages themselves.
const std::map<Message, std::map<uint64_t, Message>> &Children() {
  static const auto *children = new std::map<Message, std::map<uint64_t, Message>>{
      {kModel, {{7, kGraph}, {8, kGraph}, {12, kPrimitive}}},
      {kGraph, {{1, kNode}, {3, kTensor}, {5, kValueInfo}, {6, kValueInfo}, {8, kAttribute}, {10, kMapTensor}}},
      {kNode, {{5, kAttribute}, {8, kAttribute}, {9, kAttribute}}},
      {kAttribute, {{6, kTensor}, {7, kGraph}, {12, kTensor}, {13, kGraph}, {17, kAttribute}}},
      {kTensor, {}},
      {kValueInfo, {{2, kTensor}, {5, kAttribute}}},
      {kPrimitive, {{3, kAttribute}}},
      {kMapTensor, {{2, kAttribute}, {3, kTensor}, {4, kTensor}, {5, kTensor}}},
  };
  return *children;
}

struct Span {
  const uint8_t *at;
  const uint8_t *end;
  size_t size() const { return static_cast<size_t>(end - at); }
};

bool ReadVarint(Span *span, uint64_t *value) {
  *value = 0;
  for (int shift = 0; shift < 64 && span->at < span->end; shift += 7) {
    uint8_t byte = *span->at++;
    *value |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if (byte < 0x80) return true;
  }
  return false;
}

struct Field {
  uint64_t number;
  uint64_t wire;   // 0 varint, 1 eight bytes, 2 length and content, 5 four bytes
  uint64_t value;  // of a varint
  Span content;    // of wire type 2
};

bool ReadField(Span *span, Field *field) {
  uint64_t tag = 0;
  if (!ReadVarint(span, &tag)) return false;
  field->number = tag >> 3;
  field->wire = tag & 7;
  uint64_t length = field->wire == 1 ? 8 : field->wire == 5 ? 4 : 0;
  if (field->number == 0) return false;
  if (field->wire == 0) return ReadVarint(span, &field->value);
  if (field->wire != 1 && field->wire != 2 && field->wire != 5) return false;
  if (field->wire == 2 && !ReadVarint(span, &length)) return false;
  if (length > span->size()) return false;
  field->content = {span->at, span->at + length};
  span->at += length;
  return true;
}

struct Facts {
  bool graph = false;
  uint64_t version = 0;
};

bool Walk(Span span, Message message, int depth, Facts *facts) {
  if (depth > kDeepest) return false;
  const auto &children = Children().at(message);
  bool tensors_wanted = false;
  bool tensors_found = false;
  Field field{};
  while (span.at < span.end) {
    if (!ReadField(&span, &field)) return false;
    if (message == kModel && field.number < 9 && field.wire != 2) return false;  // ONNX has a number as field 1
    if (message == kModel && field.number == 13 && field.wire == 0) facts->version = field.value;
    if (message == kAttribute && field.number == 16 && field.wire == 0) tensors_wanted = field.value == kTypeTensors;
    auto child = children.find(field.number);
    if (child == children.end()) continue;
    if (field.wire != 2 || !Walk(field.content, child->second, depth + 1, facts)) return false;
    facts->graph |= message == kModel && child->second == kGraph;
    tensors_found |= message == kAttribute && field.number == 12;
  }
  return tensors_found || !tensors_wanted;
}

// A MINDIR starts with its ir_version: field 1, a short text.
bool StartsLikeMindir(Span span) {
  Field field{};
  if (!ReadField(&span, &field) || field.number != 1 || field.wire != 2 || field.content.size() > 32) return false;
  for (const uint8_t *at = field.content.at; at < field.content.end; at++) {
    if (*at < 0x20 || *at > 0x7e) return false;
  }
  return true;
}

std::string MindirProblem(Span span) {
  Facts facts;
  bool whole = Walk(span, kModel, 0, &facts) && facts.graph;
  if (!whole && !StartsLikeMindir(span)) return "it is not a MINDIR";
  if (facts.version > kNewestVersion) {
    return "it has mind_ir_version " + std::to_string(facts.version) + ", MindSpore Lite 2.0.0 reads up to 1: rewrite "
           "it as version 1, or export it with MindSpore 2.6 or older";
  }
  return whole ? "" : "it is a damaged or truncated MINDIR";
}

// A MindSpore Lite model is a flatbuffer whose identifier, at byte 4, is MSL and a digit.
std::string LiteProblem(Span span) {
  return span.size() > 8 && std::memcmp(span.at + 4, "MSL", 3) == 0 ? "" : "it is not a MindSpore Lite (.ms) model";
}

class Descriptor {
 public:
  explicit Descriptor(const std::string &path) : number_(open(path.c_str(), O_RDONLY | O_CLOEXEC)) {}
  ~Descriptor() {
    if (number_ >= 0) close(number_);
  }
  int number() const { return number_; }

 private:
  int number_;
};

std::string Problem(const std::string &path, bool mindir) {
  struct stat facts {};
  if (stat(path.c_str(), &facts) != 0) return std::strerror(errno);
  if (!S_ISREG(facts.st_mode)) return "it is not a file";
  Descriptor file(path);
  if (file.number() < 0) return std::strerror(errno);
  auto size = static_cast<size_t>(facts.st_size);
  if (size == 0) return "it is empty";
  void *start = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.number(), 0);
  if (start == MAP_FAILED) return std::strerror(errno);
  auto *bytes = static_cast<const uint8_t *>(start);
  Span span{bytes, bytes + size};
  std::string problem = mindir ? MindirProblem(span) : LiteProblem(span);
  munmap(start, size);
  return problem;
}

}  // namespace

std::string ModelFileProblem(const std::string &path, bool mindir) {
  std::string problem = Problem(path, mindir);
  return problem.empty() ? "" : path + ": " + problem;
}

}  // namespace lite_wrapper
