"""Frames as old and new versions of pandas pickle them, kept as text: those versions can't all be installed at once.

Each is ``DataFrame({"seq": [[1, 2], [3, 4], [5, 5]], "len_seq": [2, 2, 1], "next": [1.0, 2.0, 3.0], "title": ["a", "b",
None]})``, written by ``pickle.dump``.
"""

from __future__ import annotations

import base64
import zlib

PANDAS_0_25 = (
    "c-nPT=X%pH6m^m=%-)n$Hf9CNEKq3K!w^6$GlG#FwF)Fojx9qAg!O%G>D%xQJQ!Tb4j<D$EM47u&e6Tn)yHDk=249&<**ft@<hy="
    "!oJ8Aziei(_IyI2gQDa0T9)P4$b-^vkb0y<9Pvg{Zt{pvia4>)H(KG#o0(;!hbVfTD*Bv1a5XU{l5)TkVf&GI?O)R?Hv0b`mPZV9"
    "u)y(pXhUW{b{M72_H-8COdG1s<Css|ek{UPl&Cljm5qg2lugvei$$(AgT<jAwrV0wY!T^+jU`@zhyyJ3`e<x$RgZ?TY!=HIR?J}~"
    "!z#xuxIHsiofFp7benK%yduTl8o}E6FLPMOFzC1?!}Sj9E0xOi@AR3UJEpK9n6F}^<CVyt2w;=fuhm54YiqMfE)r7;L#FVmt{MVc"
    "gu>P!^U>*GTP2;vc7`4D-!+SQG%0MR|9RzhcCgEl+bV`MQ9M@I?OKL0QLQ%gmNP@NvBxbC|6YcDqKf^FTqsS+4oIp)nc<+WL%}W0"
    ";*iXepBTZgPW~{%k#6#%IQo0?mcp@MUM}$lt?u{j>sUS;&xV0<9G6t{6AU8?Cxfo^DJ^}PVf3f;nOwR)g0otBjA5Ll<=>*`jOaRw"
    "E#_j~v5=2AuQe|)TvWL9Q}eRcyuxr*YZkTUH91I!cb%@ZYu2bbH%Qa%p~+3h?R9&FNu8r2msaS^ZUyAI?Z|#fH}{Ss?JhUd+;<u7"
    "nS5q&-!MOrLtNouAkF!D439G8<6n?ZH1a7!HAg-(NMCLy<ntWK8G;NM{(`J&q+pmZd!NCiK}tt%lKOttbMOm>m!gA)>4HP$;iKhY"
    "G&_j0zT<Sg(2{+|8|ZdV(5?bb2eD%oU-3ptF^N3r4UpNKjC~4AphDjd(mFM1<okBgsE5=$sV=Nrn8PcE*J%e+j!fjJR5CR+C&x6y"
    "8*;qWj;qFDxqWVF4(}K`sYnxr_gQE7)Q<SzEy!O7^P=ISvHhk{+&meds`#7+<sU)mi>U"
)
"""pandas 0.25 on Python 3.7, protocol 2: the block manager in its old form."""

PANDAS_1_5 = (
    "c-n<iTWb_C6rO9X7c5286~qUh)|Y)26k4nZ8ahIsT|#CyyE8PC8Iug{iiP&UULbEh{!jmbo@93Et`<xn=Oj6o@0@%&O@4lh13&C`"
    "%jAUVQPC(qnkrUvuy@}x!#;TZ8eW~j2@GvQ>zM-kV%5BohAYX09@R{;8CM$YgLk4S4)^;#y4xoU4=So$-?)I?qMdB3;!tp!J0EBK"
    "Sax+g@1xh9FcnjZ%`qxfylA90sw<2$OuZr4I~d!WTmuPyz+RZc1suSTggE1KD7S1nG4s|{Vx#G6xVr4`V;jDOEXzLq#^Dzd7|5^o"
    "27P0G?esF(?ZxIU;I-Y%y9!}R#Gh(W6)rA`NK8T(mPBqX@0SnDZ3m}(v<_xqqiO|0`TSM@(IWFwh70KclrJ$<^uKJ;GTZ01g1`S&"
    "@Q%wjhT*t(;!egS@iHYTw;=<I9nE;3IUpM(zR7$6XlMuPjF|9au17i3$fJ8y@+11uonf0wV$-GW88tzc!N1@W+`MtHY^?cLd}6^R"
    "^;#nNvBAch$_Ne)6dpO2X5G2##J+uY8yLmp%%M4Oas@&8CBsKFOc~^kO|)rRz&4@6Q3-ua?iM6JQV9QrL%jSWwC0BS62=IL8H4OU"
    "0lPt`g3Y}8lnK!sX*%gzWC}B!3YK%E{-y5n(H~SLQWp"
)
"""pandas 1.5, protocol 4."""

PANDAS_3_ARROW = (
    "c-nPT&1=*^6i;?H{o2|Jh1yf`B1DjY;K4(otu0Djn_@k9T82q>k_nxBIGNBcSkyyn3*)I{|4xtI^vxu(yNjJb-kapTdGGyx@6A`|"
    "=cZ$sCFcs9jc}>t;yxDmHODDYH|ps(b*^05Lut&F+^lW9Fz3WeGC_ETS?Q%X!!hCDyZnmf;mKjW2X|MlH!g@JL3!t+<SMGNA_-3z"
    "L4kGxYq_3PX)*SYIX|tKNHFJk4Cf+F!aOSluR@_M9b>8FJRELJZq&fKP<wWuzN=&94s3Y3mx``RXC%gju0?i^UaIS>`hQp2pOx?X"
    "Z~wqDufeuZ!SztNL*w2dT6PCLBb|Xm2>h1|L6tyW8C2kuED4E;ti$PZ2Oa&UeYrMS3Fw3;p^|+R@jMNxD5}x9-KfF0Iy2I4q@o+L"
    "lT2m3HIuakS=F^ldrt`+{)tY1IwAV(E?B*OZ8yqJEf#i6uxKI}eSTjk`l1Qc0feS2f6x$aXaSTS?sA@=eh@s#;@yU-rmGfFfl<S7"
    "zZhd}=s}+-xdMEb0<c3ZyDmMHE1F0Y<s4y_K&t|!%MA0Fpwb+#E_5Q0(7+lRhs9!y{-J%_g4#89^yBSgYkJxDu+iGLdmNZA&=|fj"
    "nw&#*lTl0d>r(gIrkigHQ*XZfuH7$dj}V8H01j0EI6|LI;wTgpAUCGRZA8vU=>@nXN-m*{oT3B$4T3;er`654j$nipJ*aV}@92?B"
    "-~SJ*9<;8;%7^OQ88o_$Tx#S>BiCk7Y4;`h#7KrfWaLbUL@+V~6D2gJbP5N0q5+V-OkX#CWj<9<&eAc?Vlq(^{o%vF3CsnIo9sbz"
    "6hO6B2q?DkBnH_Y0_foy(-=hN8iPhliNFSwA<Qin0xqj_O+v(QY}7}XvHY||qpE<Z#)2S*0|FP-RaphzU!{S}%K"
)
"""pandas 3 with pyarrow, protocol 5: texts lie in pyarrow's buffers."""


def pickled(text: str) -> bytes:
    """The bytes of one of the frames."""
    return zlib.decompress(base64.b85decode(text))
