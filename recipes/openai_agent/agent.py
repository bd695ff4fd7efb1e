"""A search agent with experience: `python -m recipes.openai_agent.agent URL MODEL HEK CORPUS QUESTION`."""

import sys

from openai import OpenAI

from hiexp_verl import Guide
from hiexp_verl.config import SearchConfig
from hiexp_verl.search import open_engine


def run(url: str, model: str, hek: str, corpus: str, question: str, turns: int = 6) -> str:
    """Return the last turn of the agent on one question."""
    system = "Write <search>a query</search> to search. When you know the answer, write <answer>it</answer>."
    client, engine = OpenAI(base_url=url, api_key="none"), open_engine(SearchConfig(corpus=corpus))
    episode = Guide.open(hek).begin(question)
    messages = episode.system([{"role": "system", "content": system}, {"role": "user", "content": question}])  # the best of E2 and E3
    for _ in range(turns):
        text = client.chat.completions.create(model=model, messages=messages).choices[0].message.content or ""
        if "<search>" not in text:
            break
        query = text.partition("<search>")[2].partition("</search>")[0].strip()
        documents = "\n".join(f"{passage.title}: {passage.text}" for passage, _ in engine.search([query], 3)[0])
        messages += [{"role": "assistant", "content": text}, {"role": "user", "content": episode.tool(query, documents)}]  # E1
    return text


if __name__ == "__main__":
    print(run(*sys.argv[1:6]))
