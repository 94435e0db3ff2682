#ifndef H2A_LITE_MODEL_FILE_H_
#define H2A_LITE_MODEL_FILE_H_

#include <string>

namespace lite_wrapper {

// Why the runtime must not be given this model file, in one line; empty when nothing speaks against it.
std::string ModelFileProblem(const std::string &path, bool mindir);

}  // namespace lite_wrapper

#endif  // H2A_LITE_MODEL_FILE_H_
