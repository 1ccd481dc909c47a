// Node's built-in fetch without headers. Arguments: the URL of TorchServe or nginx, an image and a text.
import { readFileSync } from "node:fs";

const [base, imagePath, textPath] = process.argv.slice(2);
const image = readFileSync(imagePath);
const text = readFileSync(textPath, "utf8");

async function post(path, body) {
  const response = await fetch(base + path, { method: "POST", body });
  return { status: response.status, body: await response.json() };
}

const json = (value) => JSON.stringify(value);
const form = new FormData();
form.append("image", new Blob([image]), "photo.jpg");
form.append("top_k", "2");
console.log(
  json({
    summary: await post("/predictions/t5-small", json({ inputs: text })),
    short: await post("/predictions/t5-small", json({ inputs: text, parameters: { max_new_tokens: 3 } })),
    refused: await post("/predictions/t5-small", json({ inputs: text, parameters: { num_beams: 100 } })),
    text: await post("/predictions/t5-small", text),
    labels: await post(
      "/predictions/resnet-50",
      json({ inputs: image.toString("base64"), parameters: { top_k: 2 } }),
    ),
    image: await post("/predictions/resnet-50", new Blob([image])),
    form: await post("/predictions/resnet-50", form),
    v1: await post("/v1/models/t5-small:predict", json({ instances: [text] })),
  }),
);
