// Hugging Face's client: the arguments are its folder, its package, a server's URL, an image and a text.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [folder, name, base, imagePath, textPath] = process.argv.slice(2);
const huggingface = createRequire(`${folder}/package.json`)(name);
const Client = huggingface.InferenceClient ?? huggingface.HfInference;
const image = new Blob([readFileSync(imagePath)], { type: "image/jpeg" });
const inputs = readFileSync(textPath, "utf8");
const summarizer = new Client().endpoint(`${base}/predictions/t5-small`);
const classifier = new Client().endpoint(`${base}/predictions/resnet-50`);

console.log(
  JSON.stringify({
    summary: await summarizer.summarization({ inputs }),
    short: await summarizer.summarization({ inputs, parameters: { max_length: 5, temperature: 1.0 } }),
    options: await summarizer.summarization({ inputs }, { wait_for_model: true, use_cache: false }),
    refused: await summarizer.summarization({ inputs, parameters: { temperature: 0.7 } }).then(
      () => "an answer",
      (error) => String(error),
    ),
    labels: await classifier.imageClassification({ data: image }),
  }),
);
