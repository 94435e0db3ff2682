// The converter of the wheel's libmindspore_converter.so: what the library exports, as the wheel lacks the header
// (include/converter.h of MindSpore Lite r2.0). Strings cross the library's border as vectors of characters.
#ifndef H2A_LITE_CONVERTER_H_
#define H2A_LITE_CONVERTER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "include/api/data_type.h"
#include "include/api/format.h"
#include "include/api/status.h"
#include "include/api/types.h"

namespace mindspore {

struct ConverterPara;

namespace converter {
enum FmkType : int { kFmkTypeTf, kFmkTypeCaffe, kFmkTypeOnnx, kFmkTypeMs, kFmkTypeTflite, kFmkTypePytorch };
}  // namespace converter

class Converter {
 public:
  using Chars = std::vector<char>;

  Converter();
  Status Convert(converter::FmkType framework, const Chars &model, const Chars &output, const Chars &weights);
  void SetConfigFile(const Chars &path);
  void SetConfigInfo(const Chars &section, const std::map<Chars, Chars> &info);
  std::map<Chars, std::map<Chars, Chars>> GetConfigInfoChar() const;
  void SetDecryptKey(const Chars &key);
  Chars GetDecryptKeyChar() const;
  void SetDecryptMode(const Chars &mode);
  Chars GetDecryptModeChar() const;
  void SetDevice(const Chars &device);
  Chars GetDeviceChar();
  void SetEnableEncryption(bool on);
  bool GetEnableEncryption() const;
  void SetEncryptKey(const Chars &key);
  Chars GetEncryptKeyChar() const;
  void SetInfer(bool on);
  bool GetInfer() const;
  void SetInputDataType(DataType type);
  DataType GetInputDataType();
  void SetInputFormat(Format format);
  Format GetInputFormat() const;
  void SetInputShape(const std::map<Chars, std::vector<int64_t>> &shapes);
  std::map<Chars, std::vector<int64_t>> GetInputShapeChar() const;
  void SetNoFusion(bool on);
  void SetOutputDataType(DataType type);
  DataType GetOutputDataType();
  void SetSaveType(ModelType type);
  ModelType GetSaveType() const;
  void SetWeightFp16(bool on);
  bool GetWeightFp16() const;

 private:
  std::shared_ptr<ConverterPara> data_;
};

}  // namespace mindspore

#endif  // H2A_LITE_CONVERTER_H_
